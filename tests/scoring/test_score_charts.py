from deeplab_lit.crf import DenseCRF
from deeplab_lit.scoring import score_charts
from deeplab_lit.scoring.crf_scores import CRFScores
from deeplab_lit.scoring.score_charts import ScoreCharts


def test_both_scores_are_drawn(make_module, make_data, make_trainer, tmp_path, monkeypatch):
    module, crf, bars = make_module(), CRFScores(DenseCRF(backend="torch", iterations=1)), []
    monkeypatch.setattr(score_charts, "class_bars", lambda iou, *rest: bars.append(iou))
    trainer = make_trainer(callbacks=[crf, ScoreCharts(tmp_path, crf)])
    trainer.validate(module, make_data(val_size=2), verbose=False)
    assert bars[0].keys() == {"network", "after the CRF"}
    assert str(bars[0]["network"]) == str(module.scores.iou.tolist())
    assert str(bars[0]["after the CRF"]) == str(crf.scores.iou.tolist())
    assert {p.name for p in tmp_path.glob("*.png")} == {"confusion.png", "confusion_crf.png"}


def test_without_the_crf_there_is_one_score(make_module, make_data, make_trainer, tmp_path):
    trainer = make_trainer(callbacks=[ScoreCharts(tmp_path)])
    trainer.validate(make_module(), make_data(val_size=2), verbose=False)
    assert {p.name for p in tmp_path.glob("*.png")} == {"confusion.png", "classes.png"}
