"""What a checkpoint keeps of the classes that trained it, and going on with others."""

import numpy as np
import pytest
import torch

from deeplab_lit.errors import UserError
from deeplab_lit.training.module import DeepLabModule
from deeplab_lit.training.schedule import Policy


def test_a_checkpoint_holds_plain_data_whatever_a_module_is_built_with(make_module):
    class Odd(DeepLabModule):
        def __init__(self, *args, teacher: torch.nn.Module | None = None, beta=0.5, **kwargs):
            super().__init__(*args, **kwargs)

    module = Odd({"a": (0, 0, 0)}, backbone="resnet6_half", teacher=torch.nn.ReLU(), beta=0.25)
    checkpoint = {"hyper_parameters": dict(module.hparams)}
    module.on_save_checkpoint(checkpoint)
    settings = checkpoint["hyper_parameters"]
    assert settings["beta"] == 0.25
    assert "teacher" not in settings
    assert settings["backbone"] == "resnet6_half"


def test_going_on_with_another_optimizer_or_other_options_of_it_is_refused(make_module):
    def adam(**options):
        return make_module(optimizer=lambda groups: torch.optim.AdamW(groups, **options))

    checkpoint = {}
    adam(eps=1e-6).on_save_checkpoint(checkpoint)
    adam(eps=1e-6).check_checkpoint(checkpoint)
    with pytest.raises(UserError, match=r"AdamW \(eps 1e-06\), but .*AdamW \(eps 1e-08\)"):
        adam().check_checkpoint(checkpoint)
    with pytest.raises(UserError, match=r"AdamW, but this run has no --model.optimizer"):
        make_module().check_checkpoint(checkpoint)
    with pytest.raises(UserError, match=r"no --model.optimizer, but this run has .*AdamW:"):
        adam().check_checkpoint({})  # of an earlier version


def test_another_version_of_torch_may_add_an_option_to_an_optimizer(make_module):
    module, checkpoint = make_module(optimizer=torch.optim.AdamW), {}
    module.on_save_checkpoint(checkpoint)
    before = dict(checkpoint["trained_with"]["model.optimizer"])
    del before["amsgrad"]
    module.check_checkpoint({"trained_with": {"model.optimizer": before | {"gone": 1}}})
    with pytest.raises(UserError, match=r"AdamW \(eps 1\.0\), but .*AdamW \(eps 1e-08\)"):
        module.check_checkpoint({"trained_with": {"model.optimizer": before | {"eps": 1.0}}})


def test_only_plain_options_of_an_optimizer_are_kept(make_module):
    class Odd(torch.optim.SGD):
        def __init__(self, groups, lr=1e-3, weight_decay=0):
            super().__init__(groups, lr)
            self.defaults["hook"] = print

    module, checkpoint = make_module(optimizer=Odd), {}
    module.on_save_checkpoint(checkpoint)
    assert "hook" not in checkpoint["trained_with"]["model.optimizer"]


class Falls(Policy):
    def __init__(self, speed: float = 1.0):
        self.speed = speed

    def __call__(self, step, steps):
        return 1.0


def test_going_on_with_other_options_of_a_loss_or_a_policy_is_refused(make_module):
    def build(smoothing, speed):
        loss = torch.nn.CrossEntropyLoss(ignore_index=255, label_smoothing=smoothing)
        return make_module(loss=loss, lr_policy=Falls(speed))

    module, checkpoint = build(0.1, 2.0), {}
    module.on_save_checkpoint(checkpoint)
    build(0.1, 2.0).check_checkpoint(checkpoint)
    with pytest.raises(UserError, match=r"loss\.label_smoothing 0\.1, but .*smoothing 0\.0"):
        build(0.0, 2.0).check_checkpoint(checkpoint)
    with pytest.raises(UserError, match=r"lr_policy\.speed 2\.0, but .*speed 1\.0"):
        build(0.1, 1.0).check_checkpoint(checkpoint)
    earlier = {k: v for k, v in checkpoint["trained_with"].items() if k.count(".") < 2}
    build(0.0, 1.0).check_checkpoint({"trained_with": earlier})  # does not say them


def test_numbers_of_numpy_are_kept_and_what_no_file_can_hold_is_refused(make_module):
    module = make_module(lr=np.float64(1e-3), scales=(np.float64(0.5), 1.0))
    checkpoint = {"hyper_parameters": dict(module.hparams)}
    module.on_save_checkpoint(checkpoint)
    settings = checkpoint["hyper_parameters"]
    assert (settings["lr"], settings["scales"]) == (1e-3, (0.5, 1.0))
    assert [type(n) for n in (settings["lr"], *settings["scales"])] == [float] * 3
    with pytest.raises(UserError, match=r"scales is array.* a checkpoint cannot hold"):
        make_module(scales=np.array([0.5, 1.0]))
