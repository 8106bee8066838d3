"""Losses, optimizers, policies and training steps of a user's own, from outside the package."""

import csv
import importlib
import math
import re
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch.plugins import MixedPrecision
from PIL import Image

from deeplab_lit import fit, load, validate
from deeplab_lit.data import Shapes
from deeplab_lit.errors import UserError
from deeplab_lit.runs.checkpoints import BestAndLast
from deeplab_lit.training.divergence import TrainingDiverged
from deeplab_lit.training.resumption import SaveOnSignal

README = Path(__file__).parents[2] / "deeplab_lit/README.md"
RECIPES = re.findall(r"```python\n(# mine\.py.*?)```", README.read_text("utf-8"), re.DOTALL)
SMALL = {"backbone": "resnet10_quarter", "weights": "none", "norm": "batch", "scales": (1.0,)}
OWN = """
import copy

import torch
from torch import nn


class WithDiscriminator(DeepLabModule):
    def __init__(self, *args, discriminator_lr: float = 1e-4, **kwargs):
        super().__init__(*args, **kwargs)
        self.automatic_optimization = False
        self.discriminator_lr = discriminator_lr
        self.discriminator = nn.Conv2d(len(self.classes), 1, 1)

    def configure_optimizers(self):
        parameters = self.discriminator.parameters()
        return super().configure_optimizers(), {
            "optimizer": torch.optim.Adam(parameters, lr=self.discriminator_lr)
        }

    def training_step(self, batch, index):
        segmenter, critic = self.optimizers()
        logits = self.net.logits(batch["image"])
        loss = self.training_loss(logits, batch["mask"])
        segmenter.zero_grad()
        self.manual_backward(loss)
        segmenter.step()
        self.lr_schedulers().step()
        critic.zero_grad()
        self.manual_backward(self.discriminator(logits.fused.detach().softmax(1)).mean())
        critic.optimizer.step()  # not critic.step(): Lightning would count it as a training step
        self.log("train/loss", loss)


class Adversarial(DeepLabModule):  # a critic for each head; source and target in one step
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.automatic_optimization = False
        self.critics = nn.ModuleList(nn.Conv2d(len(self.classes), 1, 1) for _ in range(2))

    def configure_optimizers(self):
        groups = [[{"name": f"critic{i}", "params": critic.parameters()}]
                  for i, critic in enumerate(self.critics)]
        critics = [torch.optim.Adam(group, lr=1e-4, betas=(0.9, 0.99)) for group in groups]
        return [super().configure_optimizers(), *map(self.with_schedule, critics)]

    def training_step(self, batch, index):
        network, *others = self.optimizers()
        for optimizer in (network, *others):
            optimizer.zero_grad()
        self.manual_backward(self.labeled_loss(batch["image"], batch["mask"]))
        heads = self.net.logits_and_aux(batch["unlabeled"]["image"])
        for critic in self.critics:
            critic.requires_grad_(False)
        fooled = [c(x.fused.softmax(1)).mean() for c, x in zip(self.critics, heads)]
        self.manual_backward(1e-3 * sum(fooled))
        for critic in self.critics:
            critic.requires_grad_(True)
        told = [c(x.fused.detach().softmax(1)).mean() for c, x in zip(self.critics, heads)]
        self.manual_backward(sum(told))
        network.step()
        for optimizer in others:
            self.step_uncounted(optimizer)
        self.step_schedules()


class MeanTeacher(DeepLabModule):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.teacher = copy.deepcopy(self.net).requires_grad_(False)

    def training_step(self, batch, index):
        with torch.no_grad():
            for mine, its in zip(self.teacher.parameters(), self.net.parameters()):
                mine.lerp_(its, 0.5)
        return super().training_step(batch, index)


class HeadAlone(DeepLabModule):
    def training_step(self, batch, index):
        return self.training_loss(self.net.logits(batch["image"]), batch["mask"])


class OneCritic(DeepLabModule):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.automatic_optimization = False
        self.critic = nn.Linear(1, 1, bias=False)

    def configure_optimizers(self):
        critic = torch.optim.SGD(self.critic.parameters(), lr=1.0)
        return [super().configure_optimizers(), self.with_schedule(critic)]

    def training_step(self, batch, index):
        network, critic = self.optimizers()
        for optimizer in (network, critic):
            optimizer.zero_grad()
        self.manual_backward(self.labeled_loss(batch["image"], batch["mask"]))
        self.manual_backward(self.critic(torch.tensor([0.25])).sum())
        if self.global_step == 1 and self.fails:
            network.step()
            raise RuntimeError("half of the optimizers have stepped")
        network.step()
        self.step_uncounted(critic)
        self.step_schedules()

    fails = False


class ReturnsNothing(DeepLabModule):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.automatic_optimization = False

    def training_step(self, batch, index):
        optimizer = self.optimizers()
        optimizer.zero_grad()
        self.manual_backward(self.labeled_loss(batch["image"], batch["mask"]) * torch.nan)
        optimizer.step()
"""


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """The README's recipes and the class above, in a file beside the command; its name."""
    assert len(RECIPES) == 4
    assert all(len(re.findall(r"^.*\S", recipe, re.MULTILINE)) <= 10 for recipe in RECIPES)
    (tmp_path / "code").mkdir()
    (tmp_path / "code/mine.py").write_text("\n".join([*RECIPES, OWN]))
    monkeypatch.syspath_prepend(tmp_path / "code")
    yield "mine"
    sys.modules.pop("mine", None)


def columns(folder):
    return (Path(folder) / "metrics.csv").read_text().splitlines()[0].split(",")


def read(folder):
    return torch.load(Path(folder) / "checkpoints/last.ckpt", weights_only=True)


def test_a_loss_of_ones_own_is_trained_with_and_its_options_are_on_the_command_line(
    mine, tmp_path, tiny_args
):
    states = {}
    for gamma in (0, 2):
        options = {
            "--model.loss": f"{mine}.Focal",
            "--model.loss.gamma": gamma,
            "--run": f"g{gamma}",
        }
        fit.main(tiny_args(tmp_path / "runs", **options))
        checkpoint = read(tmp_path / f"runs/shapes/g{gamma}")
        assert checkpoint["trained_with"]["model.loss"] == f"{mine}.Focal"
        states[gamma] = checkpoint["state_dict"]
    fit.main(tiny_args(tmp_path / "runs", **{"--run": "default"}))
    default = read(tmp_path / "runs/shapes/default")["state_dict"]
    name = "net.head.branches.0.weight"
    torch.testing.assert_close(states[0][name], default[name])  # gamma 0 is the cross-entropy
    assert not torch.allclose(states[2][name], default[name])
    load(tmp_path / "runs/shapes/g2/checkpoints/last.ckpt")


def test_another_optimizer_takes_the_parameter_groups_and_its_own_options(tmp_path, tiny_args):
    options = {"--model.optimizer": "AdamW", "--model.optimizer.betas": "[0.8,0.9]"}
    fit.main(tiny_args(tmp_path / "runs", **options, **{"--run": "adam", "--model.lr": "1e-3"}))
    (state,) = read(tmp_path / "runs/shapes/adam")["optimizer_states"]
    groups = {group["name"]: group for group in state["param_groups"]}
    assert groups.keys() == {"backbone", "head.weight", "head.bias"}
    assert {group["betas"] for group in groups.values()} == {(0.8, 0.9)}
    assert groups["head.bias"]["initial_lr"] == 20 * groups["backbone"]["initial_lr"] == 20e-3
    assert groups["head.bias"]["weight_decay"] == 0
    assert groups["backbone"]["weight_decay"] == 5e-4


def test_a_policy_of_ones_own_with_a_warm_up(mine, tmp_path, tiny_args):
    options = {"--model.lr_policy": f"{mine}.Cosine", "--model.lr_policy.floor": 0.5}
    options |= {
        "--trainer.log_every_n_steps": 1,
        "--model.warmup_steps": 2,
        "--model.lr": 1.0,
        "--model.head_lr_mult": 0,
    }
    fit.main(tiny_args(tmp_path / "runs", **options, **{"--run": "cosine"}))
    rates = [row.get("lr/backbone") for row in rows(tmp_path / "runs/shapes/cosine")]
    cosine = [0.5 + 0.25 * (1 + math.cos(math.pi * step / 4)) for step in range(4)]
    assert rates == pytest.approx([cosine[0] / 2, *cosine[1:]])


def test_images_without_labels_are_trained_with_as_the_readme_shows(mine, tmp_path, tiny_args):
    (tmp_path / "photos").mkdir()
    for number in range(3):
        image = Image.effect_noise((80, 64), 50 + number).convert("RGB")
        image.save(tmp_path / f"photos/{number}.png")
    weights = {}
    for name in ("deeplab_lit.training.module.DeepLabModule", f"{mine}.Certain"):
        run = name.rpartition(".")[2]
        options = {"--model": name, "--run": run, "--unlabeled_data": "Images"}
        options["--unlabeled_data.root"] = tmp_path / "photos"
        fit.main(tiny_args(tmp_path / "runs", **options))
        state = read(tmp_path / "runs/shapes" / run)["state_dict"]
        weights[run] = state["net.head.branches.0.weight"]
    assert weights["Certain"].isfinite().all()
    assert not torch.allclose(weights["Certain"], weights["DeepLabModule"])


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def test_a_module_of_ones_own_trains_goes_on_and_is_a_network_for_every_command(
    mine, tmp_path, tiny_args, capsys
):
    """It has parameters beside the network, two optimizers, and an option of its own."""
    runs = tmp_path / "runs"
    options = {"--model": f"{mine}.WithDiscriminator", "--model.discriminator_lr": 0.5}
    options["--trainer.log_every_n_steps"] = 1
    fit.main(tiny_args(runs, **options, **{"--run": "two"}))
    folder = runs / "shapes/two"
    first = read(folder)
    assert first["global_step"] == 4  # steps of the network's optimizer alone
    assert len(first["optimizer_states"]) == 2
    assert first["hyper_parameters"]["discriminator_lr"] == 0.5
    assert {"train/loss", "lr/backbone", "val/miou"} <= set(columns(folder))

    with pytest.raises(SystemExit):  # DeepLabModule would leave its discriminator behind
        fit.main(tiny_args(runs, **{"--run": "two", "--ckpt_path": "last"}))
    assert f"was trained with --model {mine}.WithDiscriminator" in capsys.readouterr().err

    longer = {"--run": "two", "--ckpt_path": "last", "--trainer.max_steps": 6}
    fit.main(tiny_args(runs, **options, **longer))
    again = read(folder)
    assert again["global_step"] == 6
    moved = "discriminator.weight"
    assert not again["state_dict"][moved].equal(first["state_dict"][moved])

    path = folder / "checkpoints/last.ckpt"
    scored = validate.main(["--ckpt_path", str(path), "--trainer.accelerator", "cpu"])
    net = load(path)
    for weight, trained in zip(scored.module.net.parameters(), net.parameters(), strict=True):
        assert weight.equal(trained)
    name = "head.branches.0.weight"
    assert net.state_dict()[name].equal(again["state_dict"][f"net.{name}"])


ADVERSARIAL = {
    "--unlabeled_data": "Shapes",
    "--unlabeled_data.train_split": "val",
    "--model.aux_head": "true",
    "--model.loss_size": "image",
    "--model.norm": "frozen_affine",
    "--model.bias_lr_mult": 1,
    "--model.bias_weight_decay": "true",
    "--model.schedule_steps": 8,
    "--trainer.log_every_n_steps": 1,
}


def test_three_optimizers_share_a_schedule_and_a_run_that_was_interrupted_ends_the_same(
    mine, tmp_path, tiny_args, capsys
):
    runs = tmp_path / "runs"
    options = {**ADVERSARIAL, "--model": f"{mine}.Adversarial"}
    fit.main(tiny_args(runs, **options, **{"--run": "whole"}))
    fit.main(tiny_args(runs, **options, **{"--run": "parts", "--trainer.max_steps": 2}))
    fit.main(["--ckpt_path=last", f"--runs_dir={runs}", "--model", f"{mine}.Adversarial",
              "--trainer.max_steps=4"])  # fmt: skip
    whole, parts = read(runs / "shapes/whole"), read(runs / "shapes/parts")
    assert parts["global_step"] == 4  # not twelve
    for name, value in whole["state_dict"].items():
        assert parts["state_dict"][name].equal(value), name
    assert len(parts["optimizer_states"]) == len(parts["lr_schedulers"]) == 3
    assert [s["last_epoch"] for s in parts["lr_schedulers"]] == [4, 4, 4]
    for base, name in ((0.01, "backbone"), (0.1, "head.bias"), (1e-4, "critic0")):
        for folder in ("whole", "parts"):
            rates = [row[f"lr/{name}"] for row in rows(runs / "shapes" / folder)]
            assert rates == pytest.approx([base * (1 - step / 8) ** 0.9 for step in range(4)])

    capsys.readouterr()
    options |= {"--run": "parts", "--ckpt_path": "last"}
    for changed, words in (
        ({"--model.aux_weight": 0.5}, "aux_weight"),
        ({"--model.schedule_steps": 9}, "schedule_steps"),
        ({"--trainer.max_steps": 9}, "error: --model.schedule_steps is 8, but the training has 9"),
    ):
        with pytest.raises(SystemExit):
            fit.main(tiny_args(runs, **(options | changed)))
        assert words in capsys.readouterr().err

    path = runs / "shapes/parts/checkpoints/last.ckpt"
    scored = validate.main(["--ckpt_path", str(path), "--trainer.accelerator", "cpu"])
    net = load(path)
    assert net.aux_head is None
    assert net.norm == "frozen_affine"
    for name, value in net.state_dict().items():
        if name.endswith("num_batches_tracked"):
            continue
        assert value.equal(parts["state_dict"][f"net.{name}"]), name
        assert value.equal(scored.module.net.state_dict()[name]), name


def test_a_teacher_is_in_the_checkpoint_but_is_neither_trained_nor_taken_for_the_network(
    mine, tmp_path, tiny_args
):
    options = {"--model": f"{mine}.MeanTeacher", "--run": "mean"}
    fit.main(tiny_args(tmp_path / "runs", **options))
    content = read(tmp_path / "runs/shapes/mean")
    trained = sum(len(g["params"]) for g in content["optimizer_states"][0]["param_groups"])
    net = load(tmp_path / "runs/shapes/mean/checkpoints/last.ckpt")
    assert trained == len(list(net.parameters()))
    name = "head.branches.0.weight"
    assert net.state_dict()[name].equal(content["state_dict"][f"net.{name}"])
    assert not net.state_dict()[name].equal(content["state_dict"][f"teacher.{name}"])


def test_the_loss_is_scaled_for_16_bit_floats_and_no_optimizer_steps_further_for_it(
    mine, make_trainer, make_data
):
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    plugin = MixedPrecision("16-mixed", "cpu", scaler=scaler)
    module = importlib.import_module(mine).OneCritic(Shapes.classes, **SMALL)
    before = module.critic.weight.item()
    make_trainer(max_steps=2, limit_val_batches=0, plugins=[plugin]).fit(module, make_data())
    assert before - module.critic.weight.item() == pytest.approx(0.25 * (1 + 0.5**0.9), rel=1e-3)


@pytest.mark.parametrize("half", [False, True])
def test_a_step_of_which_one_optimizer_is_missing_is_not_saved(
    mine, make_trainer, make_data, tmp_path, half
):
    module = importlib.import_module(mine).OneCritic(Shapes.classes, **SMALL)
    module.fails = half
    if not half:
        module.on_validation_epoch_start = lambda: int("between two steps")
    best = BestAndLast(tmp_path, monitor="val/miou", mode="max")
    trainer = make_trainer(
        callbacks=[SaveOnSignal(), best], enable_checkpointing=True, val_check_interval=2
    )
    with pytest.raises((RuntimeError, ValueError)):
        trainer.fit(module, make_data())
    assert (tmp_path / "last.ckpt").exists() is not half
    assert trainer.global_step == 2


def test_a_step_that_leaves_out_the_auxiliary_head_is_refused(mine, make_trainer, make_data):
    module = importlib.import_module(mine).HeadAlone
    module = module(Shapes.classes, **SMALL, aux_head=True)
    with pytest.raises(UserError, match=r"HeadAlone trains .*labeled_loss.*--model\.aux_head"):
        make_trainer(limit_val_batches=0).fit(module, make_data())
    frozen = type(module)(Shapes.classes, **SMALL, aux_head=True, freeze="aux_head")
    make_trainer(limit_val_batches=0, max_steps=1).fit(frozen, make_data())


def test_weights_that_are_no_numbers_end_a_training_whose_step_returns_no_loss(
    mine, make_trainer, make_data
):
    module = importlib.import_module(mine).ReturnsNothing(Shapes.classes, **SMALL)
    trainer = make_trainer(limit_val_batches=0, max_steps=9, log_every_n_steps=2)
    with pytest.raises(TrainingDiverged, match="at step 2, and the weights are no numbers"):
        trainer.fit(module, make_data())


@pytest.mark.parametrize(
    "option", ["--trainer.accumulate_grad_batches=2", "--trainer.gradient_clip_val=1"]
)
def test_what_lightning_does_not_do_for_several_optimizers_is_said_first(
    mine, tmp_path, tiny_args, capsys, option
):
    options = {"--model": f"{mine}.ReturnsNothing"}
    with pytest.raises(SystemExit) as stop:
        fit.main([*tiny_args(tmp_path / "runs", **options), option])
    assert stop.value.code == 2
    assert "this --model steps its optimizers itself" in capsys.readouterr().err


def test_frozen_parts_do_not_change_and_get_no_gradients(make_module, make_data, make_trainer):
    module = make_module(freeze=["conv1", "bn1", "layer1"])
    before = {name: value.clone() for name, value in module.net.state_dict().items()}
    make_trainer(max_steps=2, val_check_interval=1).fit(module, make_data())
    after = module.net.state_dict()
    frozen = ("backbone.conv1.", "backbone.bn1.", "backbone.layer1.")
    for name, value in after.items():
        if name.startswith(frozen):
            assert value.equal(before[name]), name
    assert not after["backbone.layer2.0.conv1.weight"].equal(
        before["backbone.layer2.0.conv1.weight"]
    )
    assert module.net.backbone.conv1.weight.grad is None
    trained = [p for group in module.parameter_groups() for p in group["params"]]
    assert module.net.backbone.conv1.weight not in set(trained)
    assert len(trained) == sum(p.requires_grad for p in module.net.parameters())


def test_a_frozen_backbone_leaves_the_head(make_module):
    module = make_module(freeze="backbone")
    assert [group["name"] for group in module.parameter_groups()] == ["head.weight", "head.bias"]
    assert not module.net.backbone(torch.rand(1, 3, 33, 33)).requires_grad


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"freeze": "layer9"}, "freeze is 'layer9'.* conv1, bn1, layer1"),
        ({"freeze": "preprocess"}, "freeze is 'preprocess'.* backbone, head"),
        ({"freeze": ["backbone", "head"]}, "nothing is left to train"),
        ({"warmup_steps": -1}, "warmup_steps is out of range: -1"),
        ({"optimizer": lambda groups: torch.optim.AdamW(groups, lr=0.5)}, "optimizer.lr is 0.5.*"
         "--model.lr"),
        ({"optimizer": torch.optim.AdamW, "momentum": 0.5}, "momentum is 0.5.*AdamW"),
        ({"loss": torch.nn.Linear(1, 1)}, "the loss Linear has parameters to train"),
    ],
)  # fmt: skip
def test_what_would_be_set_in_vain_is_refused(make_module, options, words):
    with pytest.raises(ValueError, match=words):
        make_module(**options)


def test_a_loss_is_not_asked_about_scales_without_labels_and_must_give_a_scalar(make_module):
    class PerPixel(torch.nn.Module):
        def forward(self, logits, target):
            assert (target != 255).any()
            return logits.sum(1)

    module = make_module(loss=PerPixel())
    logits = module.net.logits(torch.zeros(1, 3, 33, 33, dtype=torch.uint8))
    void = torch.full((1, 33, 33), 255, dtype=torch.uint8)
    loss = module.training_loss(logits, void)
    loss.backward()
    assert loss.item() == 0
    assert not module.net.head.branches[0].weight.grad.any()
    with pytest.raises(UserError, match="PerPixel must return a scalar") as error:
        module.training_loss(logits, torch.zeros_like(void))
    assert "shape (1," in str(error.value)
