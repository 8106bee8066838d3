import csv

import numpy as np
import pytest
import torch
from torch import nn

from deeplab_lit import fit, load, validate
from deeplab_lit.data import DataError
from deeplab_lit.methods.dacs import (
    DACS,
    blurred,
    class_mask,
    jittered,
    move,
    number_of_picks,
    weighted_cross_entropy,
)

LOG2 = float(np.log(2))


@pytest.fixture(scope="module")
def make_dacs():
    from deeplab_lit.data import Shapes

    def make(**options):
        small = {"backbone": "resnet10_quarter", "weights": "none", "norm": "batch", "lr": 1e-2}
        small |= {"scales": (1.0,), "atrous_rates": (2, 4), "collapse_share": 1.0}
        torch.manual_seed(0)
        return DACS(Shapes.classes, **small | options)

    return make


@pytest.fixture(scope="module")
def pairs():
    """Two data sets of drawn images; the target's masks are not read."""
    from deeplab_lit.data import Shapes
    from deeplab_lit.loading import DataModule

    def make(**loader):
        loader = {"batch_size": 2, "crop_size": 65, "num_workers": 0} | loader
        source, target = Shapes(8, 3), Shapes(8, 3, draw_seed=5)
        return DataModule(source, unlabeled=target, **loader)

    return make


def test_the_teacher_begins_as_the_mean_of_the_students_and_then_forgets_slowly():
    """Students 1, 2, 3, 4; whatever the teacher was before, step 0 replaces it."""
    teacher, student, seen = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False), []
    nn.init.constant_(teacher.weight, 99.0)
    for step in range(4):
        nn.init.constant_(student.weight, step + 1.0)
        move(teacher, student, min(1 - 1 / (step + 1), 0.99))
        seen.append(teacher.weight.item())
    assert seen == pytest.approx([1, 1.5, 2, 2.5])


def test_half_of_the_classes_is_rounded_up_or_down():
    assert [number_of_picks(n, "ceil") for n in range(1, 8)] == [1, 1, 2, 2, 3, 3, 4]
    assert [number_of_picks(n, "floor") for n in range(1, 8)] == [0, 1, 1, 2, 2, 3, 3]


def test_pasted_pixels_are_those_of_the_picked_classes_void_being_one():
    mask = torch.tensor([[0, 0, 3], [3, 255, 7]], dtype=torch.uint8)
    seen = set()
    for seed in range(40):
        pasted = class_mask(mask, "ceil", np.random.default_rng(seed))
        picked = set(mask[pasted].tolist())
        assert len(picked) == 2
        assert not picked & set(mask[~pasted].tolist())
        seen |= picked
    assert seen == {0, 3, 7, 255}
    void = torch.full((2, 2), 255, dtype=torch.uint8)
    assert class_mask(void, "ceil", np.random.default_rng(0)).all()
    assert not class_mask(void, "floor", np.random.default_rng(0)).any()


def test_void_pixels_of_a_mixture_add_nothing_and_are_counted():
    """Pixels: of the source ln 2 and void, of the target ln 4 twice with the weight ½."""
    p = torch.tensor([[0.5, 0.5], [0.9, 0.1], [0.25, 0.75], [0.25, 0.75]])
    logits = p.log().T.reshape(1, 2, 1, 4)
    mask = torch.tensor([[[0, 255, 0, 0]]], dtype=torch.uint8)
    weight = torch.tensor([[[1.0, 1.0, 0.5, 0.5]]])
    loss = weighted_cross_entropy(logits, mask, weight)
    assert loss.item() == pytest.approx((LOG2 + 0.5 * 4 * LOG2) / 4)
    assert loss.item() == pytest.approx(0.51986, abs=1e-5)
    assert weighted_cross_entropy(logits, torch.full_like(mask, 255), weight).item() == 0


def test_the_share_is_of_the_whole_batch_and_includes_the_threshold(make_dacs, monkeypatch):
    module = make_dacs()
    highest = torch.tensor([0.97, 0.968, 0.967, 0.5, 0.99, 0.2, 0.999, 0.9])
    others = ((1 - highest) / 6).expand(6, -1)
    logits = torch.stack([highest, *others]).log().reshape(7, 2, 2, 2).transpose(0, 1)
    monkeypatch.setattr(module.teacher, "forward", lambda images: logits)
    labels, share = module.pseudo_labels(torch.zeros(2, 3, 2, 2))
    assert share.item() == 0.5
    assert labels.shape == (2, 2, 2)
    assert labels.dtype == torch.uint8


def test_colors_and_blur_change_pixels_but_not_more_than_asked(make_dacs):
    images = torch.randint(60, 180, (2, 3, 33, 41), dtype=torch.uint8)
    changed = [jittered(images, 0.25, np.random.default_rng(seed)) for seed in range(40)]
    share = np.mean([not torch.equal(images, each) for each in changed])
    assert 0.6 < share < 0.95
    again = [jittered(images, 0.25, np.random.default_rng(seed)) for seed in range(40)]
    assert all(map(torch.equal, changed, again))
    assert torch.equal(jittered(images, 0.0, np.random.default_rng(1)), images)
    soft = [blurred(images, True, np.random.default_rng(seed)) for seed in range(40)]
    assert 0.3 < np.mean([not torch.equal(images, each) for each in soft]) < 0.7
    assert all(each.shape == images.shape and each.dtype == torch.uint8 for each in soft + changed)
    assert torch.equal(blurred(images, False, np.random.default_rng(1)), images)


def test_a_step_learns_what_the_formulas_say(make_dacs, pairs, make_trainer):
    """A slow reference, pixel by pixel, of a batch without color changes."""
    module = make_dacs(loss_size="image", jitter=0.0, blur=False, confidence=0.2)
    data, trainer = pairs(), make_trainer(max_steps=1, limit_val_batches=0)
    seen = {}

    def before(self, batch, batch_idx):
        if not seen:
            seen["batch"] = batch
            teacher = {k: v.clone() for k, v in module.teacher.state_dict().items()}
            student = {k: v.clone() for k, v in module.net.state_dict().items()}
            seen.update(teacher=teacher, student=student, rng=module.generator(batch_idx))
        return step(batch, batch_idx)

    step = module.training_step
    module.training_step = before.__get__(module)
    trainer.fit(module, data)
    logged = {k: v.item() for k, v in trainer.callback_metrics.items() if k.startswith("train/")}

    reference = make_dacs(loss_size="image")
    for name in seen["student"]:
        assert seen["student"][name].equal(seen["teacher"][name]), "the teacher begins as a copy"
    reference.net.load_state_dict(seen["student"])
    net, batch = reference.net.train(), seen["batch"]
    images, mask = batch["image"].numpy(), batch["mask"].numpy()
    target, rng = batch["unlabeled"]["image"], seen["rng"]
    with torch.no_grad():
        p = net(target).softmax(1).numpy()
        labels, q = p.argmax(1), (p.max(1) >= 0.2).mean()
        mixed, truth = target.numpy().copy(), labels.copy()
        weight = np.full(labels.shape, q)
        for i in range(len(images)):
            values = np.unique(mask[i])
            half = -(-len(values) // 2)
            for value in values[rng.choice(len(values), half, replace=False)]:
                place = mask[i] == value
                mixed[i][:, place] = images[i][:, place]
                truth[i][place], weight[i][place] = mask[i][place], 1
        log_p = [net(torch.as_tensor(x)).log_softmax(1).numpy() for x in (images, mixed)]
    losses = []
    for scores, wanted, weights in ((log_p[0], mask, mask * 0.0 + 1), (log_p[1], truth, weight)):
        total = 0.0
        for b, y, x in np.ndindex(*wanted.shape):
            if wanted[b, y, x] != 255:
                total -= weights[b, y, x] * scores[b, wanted[b, y, x], y, x]
        losses.append(total)
    source = losses[0] / (mask != 255).sum()
    assert logged["train/confident_share"] == pytest.approx(q, abs=1e-6)
    assert logged["train/source_loss"] == pytest.approx(source, rel=1e-4)
    assert logged["train/mix_loss"] == pytest.approx(losses[1] / truth.size, rel=1e-4)
    assert logged["train/loss"] == pytest.approx(source + losses[1] / truth.size, rel=1e-4)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_teacher_moves_with_each_optimizer_step(make_dacs, pairs, make_trainer, accumulate):
    module, means, expected = make_dacs(), [], []
    trainer = make_trainer(max_steps=3, limit_val_batches=0, accumulate_grad_batches=accumulate)

    def after(self, *args):
        weight = "backbone.conv1.weight"
        means.append(self.teacher.state_dict()[weight].clone())
        expected.append(self.net.state_dict()[weight].clone())
        statistics = self.teacher.state_dict()["backbone.bn1.running_mean"]
        assert not statistics.equal(self.net.state_dict()["backbone.bn1.running_mean"])

    module.on_before_zero_grad = lambda optimizer: None
    step = module.optimizer_step
    module.optimizer_step = lambda *args, **kwargs: (step(*args, **kwargs), after(module))[0]
    trainer.fit(module, pairs())
    assert len(means) == 3
    for number, mean in enumerate(means):
        torch.testing.assert_close(mean, torch.stack(expected[: number + 1]).mean(0))
    assert not any(p.requires_grad for p in module.teacher.parameters())
    trained = {id(p) for group in trainer.optimizers[0].param_groups for p in group["params"]}
    assert not trained & {id(p) for p in module.teacher.parameters()}


def test_a_teacher_in_evaluation_has_the_networks_statistics(make_dacs, pairs, make_trainer):
    module = make_dacs(teacher_norm="eval", ema_decay=0.5)
    make_trainer(max_steps=2, limit_val_batches=0).fit(module, pairs())
    for mine, theirs in zip(module.teacher.buffers(), module.net.buffers(), strict=True):
        assert mine.equal(theirs)
    weights = [n.backbone.conv1.weight for n in (module.teacher, module.net)]
    assert not weights[0].equal(weights[1])
    assert not any(part.training for part in module.teacher.modules())


def test_frozen_parts_of_the_teacher_stay_too(make_dacs, pairs, make_trainer):
    module = make_dacs(freeze=["conv1", "bn1"])
    before = module.teacher.backbone.bn1.running_mean.clone()
    make_trainer(max_steps=2, limit_val_batches=0).fit(module, pairs())
    assert module.teacher.backbone.bn1.running_mean.equal(before)


def test_several_scales_on_their_grids_and_bf16(make_dacs, pairs, make_trainer):
    module = make_dacs(scales=(1.0, 0.5), aux_head=True)
    trainer = make_trainer(max_steps=2, limit_val_batches=1, precision="bf16-mixed")
    trainer.fit(module, pairs())
    assert all(p.isfinite().all() for p in module.parameters())


def test_crops_of_two_sizes_cannot_be_mixed(make_dacs):
    batch = {
        "image": torch.zeros(1, 3, 65, 65, dtype=torch.uint8),
        "mask": torch.zeros(1, 65, 65, dtype=torch.uint8),
        "unlabeled": {"image": torch.zeros(1, 3, 33, 65, dtype=torch.uint8)},
    }
    with pytest.raises(DataError, match="the source are 65×65 and those of the target 65×33"):
        make_dacs().training_step(batch, 0)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"confidence": 1.5}, "confidence is out of range: 1.5, expected 0…1"),
        ({"ema_decay": -1.0}, "ema_decay is out of range"),
        ({"jitter": 0.6}, "jitter is out of range: 0.6, expected 0…0.5"),
        ({"picks": "half"}, "picks must be one of ceil, floor, got 'half'"),
        ({"teacher_norm": "frozen"}, "teacher_norm must be one of train, eval"),
        ({"loss": nn.CrossEntropyLoss(ignore_index=255)}, "the loss CrossEntropyLoss cannot"),
    ],
)
def test_options_out_of_range_are_refused(make_dacs, options, words):
    with pytest.raises(ValueError, match=words):
        make_dacs(**options)


def dacs_args(tiny_args, runs, **changes):
    options = {"--model": "deeplab_lit.methods.DACS", "--unlabeled_data": "Shapes"}
    options |= {"--unlabeled_data.draw_seed": "5", "--trainer.log_every_n_steps": "1"}
    return tiny_args(runs, **options | changes)


def test_a_run_that_was_stopped_goes_on_to_the_bit(tmp_path, tiny_args):
    """Random classes, colors and blur, the teacher, and two batches an optimizer step."""
    options = {"--model.schedule_steps": "5", "--trainer.accumulate_grad_batches": "2"}
    whole = fit.main(dacs_args(tiny_args, tmp_path / "a", **options, **{"--trainer.max_steps": 5}))
    options |= {"--run": "x"}
    fit.main(dacs_args(tiny_args, tmp_path / "b", **options, **{"--trainer.max_steps": "3"}))
    more = {"--trainer.max_steps": "5", "--ckpt_path": "last"}
    parts = fit.main(dacs_args(tiny_args, tmp_path / "b", **options, **more))
    first, second = (
        torch.load(run.folder / "checkpoints/last.ckpt", weights_only=True)
        for run in (whole, parts)
    )
    assert first["global_step"] == second["global_step"] == 5
    assert all(value.equal(second["state_dict"][k]) for k, value in first["state_dict"].items())
    with (whole.folder / "metrics.csv").open() as one, (parts.folder / "metrics.csv").open() as two:
        rows = [[row["train/mix_loss"] for row in csv.DictReader(file)] for file in (one, two)]
    assert rows[0] == rows[1]
    assert len(list((whole.folder / "training").iterdir())) == 5


def test_other_commands_take_the_network_and_leave_the_teacher(tmp_path, tiny_args):
    run = fit.main(dacs_args(tiny_args, tmp_path, **{"--run": "x"}))
    path = run.folder / "checkpoints/last.ckpt"
    state = torch.load(path, weights_only=True)["state_dict"]
    name = "backbone.conv1.weight"
    assert not state[f"net.{name}"].equal(state[f"teacher.{name}"])
    assert load(path).state_dict()[name].equal(state[f"net.{name}"])
    scored = validate.main(["--ckpt_path", str(path), "--trainer.accelerator", "cpu"])
    assert scored.module.net.state_dict()[name].equal(state[f"net.{name}"])
    again = {"--model.weights": str(path), "--trainer.max_steps": "1", "--model.lr": "0"}
    more = fit.main(dacs_args(tiny_args, tmp_path, **again, **{"--run": "y"}))
    teacher, net = more.module.teacher.state_dict(), more.module.net.state_dict()
    assert teacher[name].equal(net[name])
    assert net[name].equal(state[f"net.{name}"])


def test_two_processes_train_one_teacher(tmp_path, tiny_args):
    options = {"--trainer.devices": "2", "--trainer.strategy": "ddp_fork", "--run": "two"}
    fit.main(dacs_args(tiny_args, tmp_path, **options))
    folder = tmp_path / "shapes/two"
    state = torch.load(folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(value.isfinite().all() for value in state.values())
    assert len(list((folder / "training").iterdir())) == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"--unlabeled_data": None, "--unlabeled_data.draw_seed": None}, "needs --unlabeled_data"),
        ({"--loader.unlabeled_crop_size": "97"}, "the source are 65×65 and those of the target 97"),
        ({"--unlabeled_data.mask_dir": "masks"}, "DACS makes its pseudo-labels itself"),
        ({"--model.confidence": "2"}, "confidence is out of range: 2.0, expected 0…1"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(
    tmp_path, tiny_args, capsys, changes, words
):
    with pytest.raises(SystemExit) as stop:
        fit.main(dacs_args(tiny_args, tmp_path / "runs", **changes))
    assert stop.value.code == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
