"""Schedules: learning-rate policies (DeepLabv2, Sec. 4.1.2; Table 2), and validations.

A policy is a factor by optimizer step, which multiplies the rate of every parameter group. torch's
PolynomialLR keeps its length in the checkpoint and trains at 0 when a run is resumed for longer;
these follow the length of the run that goes on.
"""

import math
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Literal

from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from deeplab_lit.errors import UserError

PolicyName = Literal["poly", "step"]
DEFAULTS: dict[PolicyName, dict[str, float | None]] = {  # the paper's
    "poly": {"poly_power": 0.9},
    "step": {"step_size": None, "step_factor": 0.1},
}
FORMER = {"step_size": 2000}  # a default of before, which older checkpoints hold with poly too


class ScheduleError(UserError, ValueError):
    """A learning-rate policy that ends before the training; says what to do."""


class SeveralStepsError(UserError, RuntimeError):
    """A training of one's own makes several counted optimizer steps a batch; says what to do."""


class Policy(ABC):
    """A learning-rate policy of your own: a subclass, `--model.lr_policy my.Policy`.

    The arguments of its `__init__` are options of the command line, by their annotations.
    """

    @abstractmethod
    def __call__(self, step: int, steps: int) -> float:
        """Return the factor of the learning rate at an optimizer step.

        Args:
            step: counted from 0.
            steps: optimizer steps of the whole training.
        """


def poly(step: int, total_steps: int, power: float) -> float:
    """Return (1 − step/total)^power at an optimizer step counted from 0; 0 from the end on."""
    return max(1 - step / total_steps, 0.0) ** power


def stairs(step: int, size: int, factor: float) -> float:
    """Return factor^⌊step/size⌋ at an optimizer step counted from 0; Caffe's "step"."""
    return factor ** (step // size)


def build_schedule(
    optimizer: Optimizer,
    policy: PolicyName | Policy,
    options: Mapping[str, float | None],
    warmup_steps: int,
    count_steps: Callable[[], int],
    schedule_steps: int | None = None,
) -> LambdaLR:
    """Build the schedule of all groups' learning rates, to be stepped after each optimizer step.

    Args:
        optimizer: its groups have their base rates.
        policy: a name, or an object of your own.
        options: poly_power, step_size and step_factor.
        warmup_steps: over so many steps the policy's factor is multiplied by a linear ramp: by
            1/warmup_steps at the first step, by 1 from step warmup_steps − 1 on. 0: no ramp.
        count_steps: returns the optimizer steps of the whole training; called where they matter.
        schedule_steps: length of the policy, where the training is stopped before its end, as the
            250,000 of AdaptSegNet at 150,000. None: the training's.

    Raises:
        ScheduleError: the training is longer than the policy.
    """
    factor: Callable[[int], float]
    if policy == "poly":
        steps, power = policy_steps(schedule_steps, count_steps()), options["poly_power"]
        assert power is not None
        factor = lambda step: poly(step, steps, power)  # noqa: E731 - LambdaLR stores no function
    elif policy == "step":
        size = options["step_size"]
        size = size or max(policy_steps(schedule_steps, count_steps()) // 3, 1)
        falls = options["step_factor"]
        assert falls is not None
        factor = lambda step: stairs(step, int(size), falls)  # noqa: E731
    else:
        total, custom = policy_steps(schedule_steps, count_steps()), policy
        factor = lambda step: custom(step, total)  # noqa: E731
    if not warmup_steps:
        return LambdaLR(optimizer, factor)
    if (length := count_steps()) < warmup_steps:
        rank_zero_warn(
            f"--model.warmup_steps is {warmup_steps:,}, but the training has {length:,} steps: it "
            "ends before the learning rate is reached"
        )
    return LambdaLR(optimizer, lambda step: factor(step) * min((step + 1) / warmup_steps, 1.0))


def policy_steps(schedule_steps: int | None, steps: float) -> int:
    """Return the length of a policy in optimizer steps.

    Args:
        schedule_steps: as it is set; None: the training's.
        steps: of the whole training.

    Raises:
        ScheduleError: the training is longer.
    """
    if schedule_steps is not None and schedule_steps < steps:
        raise ScheduleError(
            f"--model.schedule_steps is {schedule_steps:,}, but the training has {steps:,} "
            "optimizer steps: behind the policy's end there is nothing to learn with. Set it to as "
            "many or more, or leave it out"
        )
    return int(steps) if schedule_steps is None else schedule_steps


def finite_steps(steps: float, policy: PolicyName | Policy) -> int:
    """Return the optimizer steps of a training, or refuse one without an end.

    Raises:
        ValueError: there is none.
    """
    if not 0 < steps < math.inf:
        name = policy if isinstance(policy, str) else type(policy).__name__
        raise ValueError(
            f"the {name} schedule needs to know when training ends: set --trainer.max_steps or "
            "--trainer.max_epochs"
        )
    return int(steps)


def check_steps_of_batch(steps: int, module: str) -> None:
    """Refuse several counted optimizer steps in one batch, which would end a training early.

    Args:
        steps: that Lightning counted while the batch was trained on.
        module: name of the class that trains, for the message.

    Raises:
        SeveralStepsError: more than one.
    """
    if steps > 1:
        raise SeveralStepsError(
            f"{module} made {steps} optimizer steps in one batch, and each counts as one of "
            "--trainer.max_steps: data would be skipped and the training end early. Step the "
            "network's optimizer with optimizer.step(), and each other one with "
            "self.step_uncounted(optimizer) (without 16-bit floats optimizer.optimizer.step() does "
            "too), which Lightning does not count"
        )


def validation_interval(batches: int) -> int:
    """Choose how many batches validations are apart by default: ten in a training.

    Epochs are no measure: one of twenty images is two steps, one of COCO's twelve thousand.

    Args:
        batches: of the whole training, from 1 up.

    Returns:
        The interval whose number is nearest to ten, from 5 to 20, and whose last validation is at
        the training's end; else a tenth, rounded down, of at least one batch.
    """
    parts = sorted(range(5, 21), key=lambda n: abs(n - 10))
    even = (batches // n for n in parts if batches % n == 0)
    return next(even, max(batches // 10, 1))


def why_no_validation(steps: int, done: int, accumulate: int, interval: int) -> str | None:
    """Return the sentence that a training has no validation ahead; None where it has one.

    None also where there is nothing left to train.

    Args:
        steps: optimizer steps of the whole training.
        done: of these before it goes on; 0 at its beginning.
        accumulate: batches of a step.
        interval: batches from one validation to the next, counted from the training's beginning.
    """
    batches, before = steps * accumulate, done * accumulate
    if batches <= before or batches // interval > before // interval:
        return None
    lack = "scores and checkpoints stay those so far" if done else "there will be no score"
    return (
        f"no validation will take place, so {lack}: "
        f"--trainer.val_check_interval is {interval:,} batches, and the training ends after "
        f"{batches:,} (--trainer.max_steps {steps}). For one at its end: "
        f"--trainer.val_check_interval {batches}"
    )


def check_policy(
    policy: PolicyName | Policy,
    options: Mapping[str, float | None],
    warmup_steps: int,
    schedule_steps: int | None = None,
) -> None:
    """Refuse options out of range, and those that the policy does not read: set in vain.

    Args:
        policy: a name, or an object of your own.
        options: of all named policies, by name; None: follows from the training's length.
        warmup_steps: length of the warm-up, in optimizer steps.
        schedule_steps: length of the policy, likewise; None: the training's.

    Raises:
        ValueError: an unknown policy; an option out of range; an option of another policy that is
            not at its default.
    """
    if policy not in DEFAULTS and not isinstance(policy, Policy):
        raise ValueError(
            f"lr_policy must be one of {', '.join(DEFAULTS)}, or a subclass of "
            f"deeplab_lit.training.schedule.Policy; got {policy!r}"
        )
    if not 0 <= warmup_steps <= sys.maxsize:
        raise ValueError(f"warmup_steps is out of range: {warmup_steps}, expected 0 or more")
    if schedule_steps is not None:
        if not 1 <= schedule_steps <= sys.maxsize:
            raise ValueError(
                f"schedule_steps is out of range: {schedule_steps}, expected 1 or more"
            )
        if policy == "step" and options["step_size"] is not None:
            raise ValueError(
                f"schedule_steps is {schedule_steps}, but with a step_size lr_policy step does not "
                "use it: leave one of them out"
            )
    for owner, defaults in DEFAULTS.items():
        for name, default in defaults.items():
            value = options[name]
            most = 1 if name == "step_factor" else sys.maxsize  # a learning rate falls
            if value is not None and not 0 < value <= most:
                raise ValueError(
                    f"{name} is out of range: {value}, expected more than 0"
                    + (", at most 1" if most == 1 else "")
                )
            if owner != policy and options[name] not in (default, FORMER.get(name, default)):
                label = policy if isinstance(policy, str) else type(policy).__name__
                raise ValueError(
                    f"{name} is {options[name]}, but lr_policy {label} does not use it: leave it "
                    f"out, or set --model.lr_policy {owner}"
                )
