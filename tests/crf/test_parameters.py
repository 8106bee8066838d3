import pytest

from deeplab_lit.crf import PRESETS, CRFError, DenseCRF


def test_presets_are_the_released_values():
    names = ("bi_w", "bi_xy_std", "bi_rgb_std", "pos_w", "pos_xy_std")
    released = {name: tuple(preset[n] for n in names) for name, preset in PRESETS.items()}
    assert released == {
        "resnet101": (4, 67, 3, 3, 1),
        "vgg16": (4, 65, 3, 2, 2),
        "deeplabv1": (4, 49, 5, 3, 3),
    }
    assert DenseCRF(**PRESETS["resnet101"]) == DenseCRF()
    assert all(DenseCRF(**preset).iterations == 10 for preset in PRESETS.values())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"bi_w": -1}, "bi_w must be 0 or more"),
        ({"pos_w": float("nan")}, "pos_w"),
        ({"bi_xy_std": 0}, "bi_w=0 drops the kernel"),
        ({"pos_xy_std": -3}, "pos_w=0"),
        ({"bi_rgb_std": float("inf")}, "bi_rgb_std"),
        ({"iterations": -1}, "iterations"),
        ({"iterations": 2.5}, "iterations"),
        ({"iterations": True}, "iterations"),
        ({"bi_w": "much"}, "bi_w must be a number, got 'much'"),
        ({"normalization": "before"}, "symmetric"),
        ({"backend": "numba"}, "native"),
        ({"threads": 0}, "threads"),
    ],
)
def test_refuses_parameters(wrong, message):
    with pytest.raises(CRFError, match=message):
        DenseCRF(**wrong)
