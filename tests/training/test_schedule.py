import pytest
import torch
from lightning.pytorch import Callback
from torch.optim import SGD

from deeplab_lit.data import Shapes
from deeplab_lit.training.module import DeepLabModule
from deeplab_lit.training.schedule import (
    build_schedule,
    poly,
    stairs,
    validation_interval,
    why_no_validation,
)

# 2.5e-4 · (1 − step/20000)^0.9; half-way 2.5e-4 · 0.535887, at the end 2.5e-4 · 1.346087e-4
RATES = {0: 2.5e-4, 1: 2.4998875e-4, 10_000: 1.3397168e-4, 19_999: 3.365217e-8}

# The released solvers and prototxt files: base_lr; lr_mult and decay_mult 1/1 (pretrained weights),
# 2/0 (VGG's pretrained biases), 10/1 and 20/0 (the classifiers); weight_decay 5e-4.
RESNET = {"backbone": (2.5e-4, 5e-4), "head.weight": (2.5e-3, 5e-4), "head.bias": (5e-3, 0)}
VGG = {
    "backbone": (1e-3, 5e-4),
    "backbone.bias": (2e-3, 0),
    "head.weight": (1e-2, 5e-4),
    "head.bias": (2e-2, 0),
}
POLY = {0: 1, 1: 0.999955, 10_000: 0.5358867, 19_999: 1.346087e-4}  # (1 − step/20000)^0.9
STEP = {0: 1, 1999: 1, 2000: 0.1, 5999: 0.01}  # Table 2: × 0.1 every 2,000 of 6,000


class Rates(Callback):
    """The learning rate of the backbone at each batch, with the number of optimizer steps."""

    def __init__(self):
        self.seen = []

    def on_train_batch_start(self, trainer, *args):
        self.seen.append((trainer.global_step, trainer.optimizers[0].param_groups[0]["lr"]))


class Milestones(Callback):
    """Learning rate and decay of all groups at some optimizer steps.

    Lightning itself takes the step to each of them; on the way there its scheduler is driven alone.
    """

    def __init__(self, steps):
        self.ahead, self.seen, self.batches = sorted(steps), {}, []

    def on_train_batch_start(self, trainer, module, batch, index):
        schedule = trainer.lr_scheduler_configs[0].scheduler
        if self.ahead and schedule.last_epoch == self.ahead[0]:
            groups = trainer.optimizers[0].param_groups
            self.seen[self.ahead.pop(0)] = {g["name"]: (g["lr"], g["weight_decay"]) for g in groups}
            self.batches.append(index)
            while self.ahead and schedule.last_epoch < self.ahead[0] - 1:
                schedule.step()
        trainer.should_stop = not self.ahead


class OneBias(DeepLabModule):
    """Learns the classifiers' first bias, which takes no time."""

    def training_step(self, batch, index):
        return self.net.head.new_layers()[0].bias.sum()


@pytest.mark.filterwarnings("ignore")  # of torch, that the scheduler is driven alone
@pytest.mark.parametrize(
    ("options", "base", "factors", "steps"),
    [
        ({"backbone": "resnet10_quarter", "norm": "batch"}, RESNET, POLY, 20_000),
        ({"backbone": "vgg16", "lr": 1e-3}, VGG, POLY, 20_000),
        ({"backbone": "vgg16", "lr": 1e-3, "lr_policy": "step"}, VGG, STEP, 6000),
    ],
    ids=["resnet_poly", "vgg16_poly", "vgg16_step"],
)
def test_every_group_learns_as_the_released_solvers_say(
    make_data, make_trainer, options, base, factors, steps
):
    milestones = Milestones(factors)
    trainer = make_trainer(
        max_steps=steps, accumulate_grad_batches=10, limit_val_batches=0, callbacks=[milestones]
    )
    module = OneBias(Shapes.classes, weights="none", **options)
    trainer.fit(module, make_data(train_size=200, batch_size=1, crop_size=33))
    assert milestones.batches == [0, 10, 20, 30]  # ten batches are one step
    assert list(milestones.seen) == list(factors)
    for step, factor in factors.items():
        found = milestones.seen[step]
        assert found.keys() == base.keys()
        for name, (lr, weight_decay) in base.items():
            assert found[name] == pytest.approx((factor * lr, weight_decay), rel=1e-6), (step, name)


def sgd(*rates):
    return SGD([{"params": [torch.zeros(1, requires_grad=True)], "lr": lr} for lr in rates])


def poly_schedule(optimizer, steps):
    return build_schedule(optimizer, "poly", {"poly_power": 0.9}, 0, lambda: steps)


@pytest.mark.parametrize(("step", "expected"), RATES.items())
def test_the_papers_learning_rate(step, expected):
    assert 2.5e-4 * poly(step, 20_000, 0.9) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("lr", "step", "expected"),
    [
        (2.5e-4, 125_000, 1.339717e-4),
        (2.5e-4, 120_000, 1.387852e-4),
        (2.5e-4, 149_999, 1.095968e-4),
        (1e-4, 125_000, 5.358867e-5),  # a discriminator's
    ],
)
def test_the_learning_rate_of_a_training_that_is_stopped_before_the_policy_ends(lr, step, expected):
    """AdaptSegNet: poly over 250,000 steps, of which 150,000 are taken."""
    options = {"poly_power": 0.9}
    schedule = build_schedule(sgd(lr), "poly", options, 0, lambda: 150_000, 250_000)
    factor = schedule.lr_lambdas[0]
    assert lr * factor(step) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("policy", ["poly", "step"])
def test_a_training_longer_than_its_policy_is_refused(make_module, make_trainer, make_data, policy):
    module = make_module(lr_policy=policy, schedule_steps=3)
    with pytest.raises(ValueError, match=r"schedule_steps is 3, but the training has 4 optimizer"):
        make_trainer(max_steps=4).fit(module, make_data())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"schedule_steps": 0}, "schedule_steps is out of range: 0, expected 1 or more"),
        ({"schedule_steps": 9, "lr_policy": "step", "step_size": 3}, "step_size .* leave one"),
    ],
)
def test_a_length_of_the_policy_that_does_nothing_is_refused(make_module, options, words):
    with pytest.raises(ValueError, match=words):
        make_module(**options)


def test_the_step_policy_falls_after_thirds_of_its_own_length():
    options = {"step_size": None, "step_factor": 0.1}
    factor = build_schedule(sgd(1.0), "step", options, 0, lambda: 4, 9).lr_lambdas[0]
    assert [factor(step) for step in (0, 2, 3, 5, 6)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])


def test_daformers_recipe_can_be_typed(make_module, make_trainer, make_data):
    """AdamW 6e-5, decay 0.01, the head at ten times that, a warm-up of 1500, a straight line to 0.

    Where the warm-up begins differs: there at 1e-6, here at 1/1500 of the rate.
    """
    module = make_module(
        optimizer=torch.optim.AdamW, lr=6e-5, weight_decay=0.01, bias_lr_mult=1.0,
        bias_weight_decay=True, warmup_steps=1500, poly_power=1.0, norm="batch",
    )  # fmt: skip
    rates = Rates()
    trainer = make_trainer(max_steps=40_000, limit_val_batches=0, callbacks=[rates])
    module.on_train_batch_end = lambda *_: setattr(trainer, "should_stop", trainer.global_step == 2)
    trainer.fit(module, make_data(train_size=4))
    assert type(trainer.optimizers[0]) is torch.optim.AdamW
    groups = {group["name"]: group for group in trainer.optimizers[0].param_groups}
    assert {g["weight_decay"] for g in groups.values()} == {0.01}
    base = {name: group["initial_lr"] for name, group in groups.items()}
    expected = {"backbone": 6e-5, "head.weight": 6e-4, "head.bias": 6e-4}
    assert base == pytest.approx(expected)
    expected = [6e-5 * (n + 1) / 1500 * (1 - n / 40_000) for n in range(2)]
    assert [lr for _, lr in rates.seen] == pytest.approx(expected)
    factor = trainer.lr_scheduler_configs[0].scheduler.lr_lambdas[0]
    assert factor(20_000) == 0.5


def test_learning_rate_is_zero_at_the_end_and_after_it():
    assert poly(20_000, 20_000, 0.9) == 0
    assert poly(20_001, 20_000, 0.9) == 0


@pytest.mark.parametrize(("step", "factor"), [*STEP.items(), (3999, 0.1), (4000, 0.01)])
def test_the_step_policy_falls_to_a_tenth_every_2000_steps(step, factor):
    assert stairs(step, 2000, 0.1) == pytest.approx(factor)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"lr_policy": "step", "poly_power": 0.5}, "poly_power is 0.5, .* --model.lr_policy poly"),
        ({"step_size": 100}, "step_size is 100, .* --model.lr_policy step"),
        ({"step_factor": 0.5}, "step_factor is 0.5, .* --model.lr_policy step"),
        ({"lr_policy": "cosine"}, "lr_policy must be one of poly, step, .*Policy; got 'cosine'"),
    ],
)
def test_an_option_that_the_policy_does_not_read_is_refused(make_module, options, words):
    with pytest.raises(ValueError, match=words):
        make_module(**options)


def test_a_checkpoint_from_when_step_size_was_2000_is_still_taken(make_module):
    assert make_module(step_size=2000).hparams.lr_policy == "poly"


def test_the_step_policy_needs_no_end(make_module, make_data, make_trainer):
    rates = Rates()
    trainer = make_trainer(max_steps=-1, max_epochs=-1, limit_val_batches=0, callbacks=[rates])
    module = make_module(lr=1.0, lr_policy="step", step_size=2, step_factor=0.5)
    module.on_train_batch_end = lambda *_: setattr(trainer, "should_stop", trainer.global_step == 5)
    trainer.fit(module, make_data(train_size=4))
    assert [lr for _, lr in rates.seen] == pytest.approx([1, 1, 0.5, 0.5, 0.25])


def test_the_step_policy_falls_after_each_third_of_the_training_if_nothing_else_is_said(
    make_module, make_data, make_trainer
):
    """The paper: after each 2,000 steps of 6,000."""
    rates = Rates()
    trainer = make_trainer(max_steps=6, limit_val_batches=0, callbacks=[rates])
    trainer.fit(make_module(lr=1.0, lr_policy="step"), make_data(train_size=4))
    assert [lr for _, lr in rates.seen] == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_all_groups_fall_together():
    optimizer = sgd(1.0, 2.0, 10.0, 20.0)
    schedule = poly_schedule(optimizer, 4)
    for factor in (1, 0.75**0.9, 0.5**0.9, 0.25**0.9, 0, 0):
        rates = [group["lr"] for group in optimizer.param_groups]
        assert rates == pytest.approx([factor * x for x in (1, 2, 10, 20)])
        optimizer.step()
        schedule.step()


def test_a_run_resumed_for_longer_follows_the_new_length():
    old = poly_schedule(optimizer := sgd(1.0), 10)
    for _ in range(10):
        optimizer.step()
        old.step()
    assert optimizer.param_groups[0]["lr"] == 0
    new = poly_schedule(longer := sgd(1.0), 20)
    longer.load_state_dict(optimizer.state_dict())
    new.load_state_dict(old.state_dict())
    longer.step()
    new.step()
    assert longer.param_groups[0]["lr"] == pytest.approx((1 - 11 / 20) ** 0.9)


def test_accumulated_batches_count_as_one_step(make_data, make_module, make_trainer):
    rates = Rates()
    trainer = make_trainer(
        max_steps=3, accumulate_grad_batches=2, limit_val_batches=0, callbacks=[rates]
    )
    trainer.fit(make_module(lr=1.0, weight_decay=0.0), make_data(train_size=4))
    expected = [(0, 1), (0, 1), (1, (2 / 3) ** 0.9), (1, (2 / 3) ** 0.9)]
    expected += [(2, (1 / 3) ** 0.9), (2, (1 / 3) ** 0.9)]
    assert [step for step, _ in rates.seen] == [step for step, _ in expected]
    assert [lr for _, lr in rates.seen] == pytest.approx([lr for _, lr in expected])


@pytest.mark.parametrize(
    ("batches", "interval"),
    [(1, 1), (2, 1), (7, 1), (10, 1), (16, 2), (200, 20), (5000, 500), (40_000, 4000), (1350, 135)],
)
def test_unless_it_is_said_a_training_is_validated_about_ten_times_and_at_its_end(
    batches, interval
):
    assert validation_interval(batches) == interval
    assert batches % interval == 0


def test_a_number_of_steps_that_nothing_divides_is_validated_ten_times_all_the_same():
    assert validation_interval(9973) == 997


@pytest.mark.parametrize("options", [{"poly_power": float("nan")}, {"poly_power": float("inf")}])
def test_a_power_that_is_no_number_is_refused(options):
    with pytest.raises(ValueError, match="poly_power is out of range"):
        DeepLabModule(Shapes.classes, backbone="resnet6_half", **options)


@pytest.mark.parametrize("factor", [float("nan"), 1.5])
def test_a_factor_by_which_no_rate_falls_is_refused(factor):
    with pytest.raises(ValueError, match="step_factor is out of range"):
        DeepLabModule(Shapes.classes, backbone="resnet6_half", lr_policy="step", step_factor=factor)


@pytest.mark.parametrize(
    ("steps", "done", "accumulate", "interval", "has_one"),
    [
        (10, 0, 1, 10, True),
        (10, 0, 1, 11, False),
        (10, 0, 2, 20, True),
        (60, 40, 1, 50, True),  # goes on, and passes batch 50
        (60, 50, 1, 50, False),
        (60, 60, 1, 50, True),  # all steps are done
    ],
)
def test_a_training_without_a_validation_ahead_is_told_of(
    steps, done, accumulate, interval, has_one
):
    why = why_no_validation(steps, done, accumulate, interval)
    assert (why is None) == has_one
    if why:
        assert f"--trainer.val_check_interval is {interval} batches" in why
        assert f"the training ends after {steps * accumulate} (--trainer.max_steps {steps})" in why
