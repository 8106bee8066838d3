import math

import pytest

from deeplab_lit.crf import PRESETS, CRFError
from deeplab_lit.crf.parameters import Parameters


@pytest.mark.parametrize(
    "wrong",
    [
        {"bi_w": -1},
        {"pos_w": math.nan},
        {"bi_xy_std": 0},
        {"pos_xy_std": -2},
        {"bi_rgb_std": math.inf},
        {"iterations": -1},
        {"iterations": 2.5},
        {"iterations": True},
        {"normalization": "before"},
    ],
)
def test_what_is_out_of_range_is_named(wrong):
    (name,) = wrong
    with pytest.raises(CRFError, match=name):
        Parameters(**wrong)


def test_the_presets_are_the_released_values():
    values = {name: tuple(preset.values()) for name, preset in PRESETS.items()}
    assert values == {
        "resnet101": (4, 67, 3, 3, 1),
        "vgg16": (4, 65, 3, 2, 2),
        "deeplabv1": (4, 49, 5, 3, 3),
    }
    assert all(Parameters(**preset).iterations == 10 for preset in PRESETS.values())
