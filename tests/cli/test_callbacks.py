import pytest

from deeplab_lit.cli.callbacks import build_callbacks
from deeplab_lit.crf import DenseCRF
from deeplab_lit.scoring.evaluation import Evaluation


def names(tmp_path, verb="validate", crf=False, band=None, progress=False):
    record, callbacks = build_callbacks(
        verb,
        tmp_path,
        {},
        evaluation=Evaluation(band=band),
        crf=DenseCRF(backend="torch") if crf else None,
        progress=progress,
    )
    assert record in callbacks
    return [type(callback).__name__ for callback in callbacks]


@pytest.mark.parametrize("verb", ["fit", "validate"])
def test_the_crf_comes_after_what_sees_the_network_and_before_what_waits_for_it(tmp_path, verb):
    order = names(tmp_path, verb, crf=True, band="void")
    crf = order.index("CRFScores")
    assert order.index("SamplePictures") < crf
    if verb == "validate":
        assert order.index("WorstAndBest") < crf < order.index("BandCurve")
        assert crf < order.index("ScoreCharts")


def test_training_is_not_slowed_by_what_only_a_validation_writes(tmp_path):
    only = {"ImageScores", "WorstAndBest", "ScoreCharts", "BandCurve"}
    assert only <= set(names(tmp_path, band="void"))
    assert not only & set(names(tmp_path, "fit", band="void"))
    assert "CRFScores" not in names(tmp_path)
