"""AdaptSegNet against the paper's numbers, and against a training loop like its authors'."""

import copy
import csv
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import FSDPStrategy
from PIL import Image
from torch.nn import functional as F
from torch.utils.data import DataLoader

from deeplab_lit import fit, load, predict, validate
from deeplab_lit.data import Shapes
from deeplab_lit.errors import UserError
from deeplab_lit.methods import AdaptSegNet, AdvEnt, Discriminator
from deeplab_lit.methods.adaptsegnet import SOURCE, TARGET, gan_loss

SMALL = {"backbone": "resnet10_quarter", "weights": "none", "norm": "frozen_affine"}
SMALL |= {"scales": (1.0,), "atrous_rates": (2, 4), "collapse_share": 1.0, "lr": 1e-2}
LAMBDAS = {"lambda_adv_main": 0.5, "lambda_adv_aux": 0.2}  # large enough to see


def build(method=AdaptSegNet, **options):
    torch.manual_seed(0)
    return method(Shapes.classes, **SMALL | options)


def batch_of(seed, source=(65, 81), target=(49, 65)):
    """One image of each domain, of different sizes, as the loader gives them."""
    random = torch.Generator().manual_seed(seed)
    mask = torch.randint(0, len(Shapes.classes), (1, *source), generator=random).to(torch.uint8)
    mask[:, :9] = 255
    image, other = (
        torch.randint(0, 256, (1, 3, *size), generator=random).to(torch.uint8)
        for size in (source, target)
    )
    return {
        "image": image,
        "mask": mask,
        "id": ["a"],
        "unlabeled": {"image": other, "id": ["b"]},
    }


class Batches(LightningDataModule):
    """Other batches on each process."""

    def __init__(self, batches):
        super().__init__()
        self.batches = batches  # one list a process

    def train_dataloader(self):
        return DataLoader(self.batches[self.trainer.global_rank], batch_size=None)


def entropy_map(p):
    return -p * torch.log2(p + 1e-30) / math.log2(p.shape[1])


def reference(module, batches, seen, loss_of=F.binary_cross_entropy_with_logits):
    """Return a copy of a module, trained as the authors' loop does it, in plain torch.

    Args:
        module: has the weights to begin with, and the numbers.
        batches: of each process, one a step; the first process's images move the statistics.
        seen: what a discriminator sees of probabilities.
        loss_of: of a discriminator's logits and the truth.
    """
    twin = copy.deepcopy(module)
    net, critics = twin.net.train(), list(twin.discriminators.values())
    norms = [layer for layer in net.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
    optimizers = [torch.optim.SGD(twin.parameter_groups(), lr=1.0, momentum=0.9)]
    optimizers += [torch.optim.Adam(c.parameters(), lr=1e-4, betas=(0.9, 0.99)) for c in critics]
    rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    share, steps = 1 / len(batches), len(batches[0])

    def outputs(image):
        """Upsampled logits of each level, main first."""
        levels = [net.logits(image)] if net.aux_head is None else net.logits_and_aux(image)
        size = image.shape[2:]
        return [
            F.interpolate(level.fused, size=size, mode="bilinear", align_corners=True)
            for level in levels
        ]

    def verdict_loss(critic, logits, domain):
        verdict = critic(seen(F.softmax(logits, dim=1)))
        return loss_of(verdict, torch.full_like(verdict, domain))

    for step in range(steps):
        for optimizer, base in zip(optimizers, rates, strict=True):
            optimizer.zero_grad()
            for group, lr in zip(optimizer.param_groups, base, strict=True):
                group["lr"] = lr * (1 - step / steps) ** 0.9
        for number, process in enumerate(batches):
            for layer in norms:
                layer.momentum = 0.1 if number == 0 else 0.0
            batch = process[step]
            for critic in critics:
                critic.requires_grad_(False)
            source = outputs(batch["image"])
            for weight, logits in zip([1.0, twin.aux_weight], source, strict=False):
                loss = F.cross_entropy(logits, batch["mask"].long(), ignore_index=255)
                (share * weight * loss).backward(retain_graph=True)
            target = outputs(batch["unlabeled"]["image"])
            for critic, weight, logits in zip(critics, twin.lambdas.values(), target, strict=True):
                loss = verdict_loss(critic, logits, SOURCE)
                (share * weight * loss).backward(retain_graph=True)
            for critic, one, other in zip(critics, source, target, strict=True):
                critic.requires_grad_(True)
                (share * verdict_loss(critic, one.detach(), SOURCE) / 2).backward()
                (share * verdict_loss(critic, other.detach(), TARGET) / 2).backward()
        for optimizer in optimizers:
            optimizer.step()
    return twin


def assert_same(module, expected):
    """Compare weights and statistics; of discriminators how far they have moved, within 1 %.

    Adam takes whole steps by gradients that are nothing but rounding.
    """
    start = build(type(module), aux_head=module.net.aux_head is not None).state_dict()
    result = module.state_dict()
    for name, value in expected.state_dict().items():
        if name.startswith("discriminators"):
            assert (result[name] - value).norm() < 0.01 * (value - start[name]).norm(), name
        elif not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(result[name], value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("classes", "parameters"), [(19, 2_781_121), (16, 2_778_049)])
def test_the_discriminator_has_the_released_ones_parameters(classes, parameters):
    assert sum(p.numel() for p in Discriminator(classes).parameters()) == parameters


@pytest.mark.parametrize(
    ("image", "verdicts"),
    [((720, 1280), (22, 40)), ((760, 1280), (23, 40)), ((512, 1024), (16, 32))],
)
def test_the_discriminator_says_something_of_each_32_by_32_pixels(image, verdicts):
    with torch.device("meta"):  # of all its layers; mixed precision has no such device
        said = torch.nn.Sequential.forward(Discriminator(19), torch.empty(1, 19, *image))
    assert said.shape == (1, 1, *verdicts)


def test_the_discriminator_computes_in_float32_under_mixed_precision():
    with torch.autocast("cpu", torch.bfloat16):
        assert Discriminator(2)(torch.rand(1, 2, 32, 32)).dtype is torch.float32


def test_images_smaller_than_the_discriminator_sees_are_refused():
    with pytest.raises(UserError, match="32×32 pixels or more, got 65×31"):
        Discriminator(2)(torch.rand(1, 2, 31, 65))


@pytest.mark.parametrize(
    ("logit", "domain", "gan", "value"),
    [
        (2, 0, "bce", 2.12693), (2, 1, "bce", 0.12693), (0, 0, "bce", 0.69315),
        (0.5, 1, "ls", 0.25), (0.5, 0, "ls", 0.25), (2, 0, "ls", 4),
    ],
)  # fmt: skip
def test_the_losses_of_a_discriminator(logit, domain, gan, value):
    logits = torch.full((1, 1, 2, 3), float(logit))
    assert gan_loss(logits, domain, gan).item() == pytest.approx(value, abs=1e-5)


@pytest.mark.parametrize(
    ("method", "seen", "options"),
    [
        (AdaptSegNet, torch.clone, {}),
        (AdaptSegNet, torch.clone, {"aux_head": True, **LAMBDAS}),
        (AdaptSegNet, torch.clone, {"gan": "ls", "lambda_adv_main": 0.5}),
        (AdvEnt, entropy_map, {"aux_head": True, **LAMBDAS}),
    ],
)
def test_steps_equal_those_of_the_authors_loop(method, seen, options, make_trainer):
    module = build(method, loss_size="image", **options)
    batches = [[batch_of(seed) for seed in range(3)]]
    loss_of = F.mse_loss if options.get("gan") == "ls" else F.binary_cross_entropy_with_logits
    expected = reference(module, batches, seen, loss_of)
    make_trainer(max_steps=3, limit_val_batches=0).fit(module, Batches(batches))
    assert_same(module, expected)
    assert not any(p.requires_grad for p in module.discriminators.parameters())


class EqualOnAllProcesses(Callback):
    def on_train_end(self, trainer, module):
        for name, value in module.state_dict().items():
            first, second = trainer.strategy.all_gather(value)
            assert first.equal(second), name


def test_two_processes_train_as_one_on_the_mean_of_their_losses(make_trainer):
    module = build(loss_size="image", aux_head=True, **LAMBDAS)
    batches = [[batch_of(seed) for seed in seeds] for seeds in ((0, 1, 2), (3, 4, 5))]
    expected = reference(module, batches, torch.clone)
    two = {"devices": 2, "strategy": "ddp_fork", "callbacks": [EqualOnAllProcesses()]}
    two |= {"use_distributed_sampler": False, "max_steps": 3, "limit_val_batches": 0}
    make_trainer(**two).fit(module, Batches(batches))
    assert_same(module, expected)


@pytest.fixture
def adapt_args(tiny_args, tmp_path):
    """A command line that adapts from Shapes to Shapes drawn otherwise."""

    def args(method="AdaptSegNet", **changes):
        options = {"--model": f"deeplab_lit.methods.{method}", "--unlabeled_data": "Shapes"}
        options |= {"--unlabeled_data.draw_seed": "7", "--trainer.log_every_n_steps": "1"}
        return tiny_args(tmp_path / "runs", **options | changes)

    return args


def read(run):
    return torch.load(run.folder / "checkpoints/last.ckpt", weights_only=True)


def columns(run):
    with (run.folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return {name: [float(row[name]) for row in rows if row[name]] for name in rows[0]}


def test_a_run_that_was_stopped_goes_on_to_the_same_weights_and_rates(adapt_args):
    """Stopped in the middle of an epoch; all three optimizers and their schedules."""
    options = {"--model.aux_head": "true", "--model.schedule_steps": "6"}
    options |= {"--trainer.val_check_interval": "4"}
    whole = fit.main(adapt_args(**options, **{"--trainer.max_steps": "4", "--run": "whole"}))
    fit.main(adapt_args(**options, **{"--trainer.max_steps": "2", "--run": "part"}))
    longer = {"--trainer.max_steps": "4", "--run": "part", "--ckpt_path": "last"}
    part = fit.main(adapt_args(**options, **longer))
    expected, result = read(whole), read(part)
    assert result["global_step"] == expected["global_step"] == 4
    assert len(result["optimizer_states"]) == len(result["lr_schedulers"]) == 3
    for name, value in expected["state_dict"].items():
        assert result["state_dict"][name].equal(value), name
    assert str(result["optimizer_states"]) == str(expected["optimizer_states"])
    for run in (whole, part):
        rates = columns(run)
        for name, base in (("backbone", 0.01), ("discriminator_main", 1e-4)):
            poly = [base * (1 - step / 6) ** 0.9 for step in range(4)]
            assert rates[f"lr/{name}"] == pytest.approx(poly)
        assert rates["lr/discriminator_aux"] == rates["lr/discriminator_main"]


def test_losses_are_logged_and_the_network_is_one_for_every_command(adapt_args, tmp_path, capsys):
    run = fit.main(adapt_args(**{"--trainer.max_steps": "2", "--model.lambda_adv_main": "0.5"}))
    assert "parameters" in capsys.readouterr().out
    logged = columns(run)
    both = zip(logged["train/source_loss"], logged["train/adversarial_loss_main"], strict=True)
    assert logged["train/loss"] == pytest.approx([one + 0.5 * other for one, other in both])
    assert len(logged["train/discriminator_loss_main"]) == 2
    assert (run.folder / "training/000000.png").is_file()
    path = run.folder / "checkpoints/last.ckpt"
    scored = validate.main([f"--ckpt_path={path}", "--trainer.accelerator=cpu"])
    assert scored.module.net.state_dict().keys() == load(path).state_dict().keys()
    assert (
        load(path)
        .head.branches[0]
        .weight.equal(read(run)["state_dict"]["net.head.branches.0.weight"])
    )
    image, mask = Path(tmp_path / "a.png"), tmp_path / "out"
    Image.effect_noise((80, 64), 50).convert("RGB").save(image)
    predict.main([f"--ckpt_path={path}", f"--images={image}", f"--out={mask}"])
    assert list(mask.rglob("a.png"))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"--unlabeled_data": None, "--unlabeled_data.draw_seed": None}, "AdaptSegNet needs "
         "--unlabeled_data"),
        ({"--trainer.accumulate_grad_batches": "2"}, "accumulate_grad_batches is 2, but this"),
        ({"--trainer.gradient_clip_val": "1"}, "--trainer.gradient_clip_val is 1"),
        ({"--model.lambda_adv_main": "-1"}, "lambda_adv_main is out of range: -1"),
        ({"--model.lambda_adv_aux": "0.1"}, "lambda_adv_aux is 0.1, but the network has no aux"),
        ({"--model.discriminator_lr": "2"}, "discriminator_lr is out of range: 2"),
        ({"--model.gan": "hinge"}, "hinge"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused_before_the_first_step(
    adapt_args, tmp_path, capsys, changes, words
):
    with pytest.raises(SystemExit) as stop:
        fit.main(adapt_args(**changes))
    assert stop.value.code == 2
    assert words in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "runs").exists()


def test_strategies_that_split_a_network_over_processes_are_refused():
    module = build()
    module.trainer = SimpleNamespace(strategy=FSDPStrategy())
    with pytest.raises(UserError, match=r"AdaptSegNet trains on one process, .* has FSDPStrategy"):
        module.on_fit_start()


def test_a_discriminator_that_is_lost_ends_the_training(adapt_args, capsys, monkeypatch):
    """Under float16 the network would be kept from its gradients for ever, in silence."""
    monkeypatch.setattr(Discriminator, "forward", lambda self, maps: self[0](maps) * math.nan)
    monkeypatch.setattr(torch.optim.SGD, "step", lambda self, closure=None: closure and closure())
    with pytest.raises(SystemExit) as stop:
        fit.main(adapt_args())
    assert stop.value.code == 2
    assert "the weights are no numbers any more" in capsys.readouterr().err


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_moves_network_and_discriminators_as_float32_does(precision, make_trainer):
    module = build(loss_size="image", lambda_adv_main=0.5)
    start = copy.deepcopy(module.state_dict())
    batches = [[batch_of(0)]]
    expected = reference(module, batches, torch.clone).state_dict()
    scaler = torch.amp.GradScaler("cpu") if precision == "16-mixed" else None
    plugin = MixedPrecision(precision, "cpu", scaler)
    make_trainer(max_steps=1, limit_val_batches=0, plugins=[plugin]).fit(module, Batches(batches))
    for name in ("net.head.branches.0.weight", "discriminators.main.0.weight"):
        step, right = module.state_dict()[name] - start[name], expected[name] - start[name]
        assert F.cosine_similarity(step.flatten(), right.flatten(), dim=0) > 0.9
        assert step.norm().item() == pytest.approx(right.norm().item(), rel=0.1)
