import sys
from dataclasses import asdict

import pytest

from deeplab_lit.crf import CRFError
from deeplab_lit.crf.options import CRFOptions, described, with_crf_enabled


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (4, 67, 3, 3, 1)),  # the values released with ResNet-101
        ({"preset": "vgg16"}, (4, 65, 3, 2, 2)),
        ({"preset": "deeplabv1"}, (4, 49, 5, 3, 3)),
        ({"preset": "vgg16", "pos_w": 0, "bi_rgb_std": 7.5}, (4, 65, 7.5, 0, 2)),
    ],
)
def test_what_is_given_wins_over_the_preset(given, expected):
    crf = CRFOptions(**given, backend="torch").build()
    names = ("bi_w", "bi_xy_std", "bi_rgb_std", "pos_w", "pos_xy_std")
    assert tuple(asdict(crf)[name] for name in names) == expected
    record = described(crf, "cpu")
    assert tuple(record[name] for name in names) == expected
    assert (record["iterations"], record["backend"]) == (10, "torch")


def test_a_parameter_out_of_range_is_refused():
    with pytest.raises(CRFError, match="bi_xy_std"):
        CRFOptions(bi_xy_std=-1).build()


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--a=1"], ["--a=1"]),
        (["--crf"], ["--crf.enabled=true"]),
        (["--crf", "--a=1"], ["--a=1", "--crf.enabled=true"]),
        (["--crf.bi_w", "3"], ["--crf.bi_w", "3", "--crf.enabled=true"]),
        (["--crf.enabled=false", "--crf.bi_w=3"], ["--crf.enabled=false", "--crf.bi_w=3"]),
        (["--crf", "best.yaml"], ["--crf", "best.yaml"]),
    ],
)
def test_asking_for_the_crf_in_any_way_enables_it(argv, expected):
    assert with_crf_enabled(argv) == expected


def test_a_preset_that_is_typed_wins_over_parameters_of_configurations():
    argv = with_crf_enabled(["--config=best.yaml", "--crf.preset=vgg16", "--crf.pos_w=1"])
    assert {"--crf.bi_w=null", "--crf.pos_xy_std=null", "--crf.enabled=true"} <= {*argv}
    assert "--crf.pos_w=null" not in argv


def test_a_backend_that_is_absent_is_refused_before_any_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    with pytest.raises(CRFError, match="pydensecrf is not installed"):
        CRFOptions(backend="pydensecrf").build()
