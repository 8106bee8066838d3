import pytest

from deeplab_lit.benchmark import evaluation_speed as benchmark
from deeplab_lit.benchmark.evaluation_speed import evaluation
from deeplab_lit.benchmark.meter import Seconds
from deeplab_lit.errors import UserError

SMALL = {"backbone": "resnet6_half", "norm": "batch", "scales": (1.0,), "atrous_rates": (1, 2)}


def test_validate_and_predict_score_what_the_plain_loop_scores(root, capsys):
    pytest.importorskip("pydensecrf", reason="pydensecrf is not installed")
    evaluation(str(root), num_images=3, size=(48, 64), rounds=2, **SMALL)
    title, *lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith(("  round 1: ", "  round 2: ")) for line in lines) == 20
    lines = [line for line in lines if "as fast" in line]
    assert "3 images (the first of 64×48), resnet6_half, aspp, scales [1.0], CPU" in title
    ours = ["validate{}", "predict{}", "validate{}, bfloat16", "predict{}, bfloat16"]
    alone = ["plain loop", *(name.format("") for name in ours)]
    with_crf = ["plain loop + pydensecrf", *(name.format(" + CRF") for name in ours)]
    assert [line.split("  ")[1] for line in lines] == alone + with_crf
    miou = [float(line.rsplit("mIoU ")[1].split()[0]) for line in lines]
    assert miou[0] == miou[1] == miou[2]
    assert miou[5] == pytest.approx(miou[6], abs=0.2)  # pydensecrf rounds otherwise
    assert miou[6] == miou[7]
    assert all(float(line.split("×")[0].split()[-1]) > 0 for line in lines)


def test_what_was_measured_is_printed_where_it_is_interrupted(root, capsys, monkeypatch):
    times = iter([1.0, 2.0])

    def interrupted(run):
        run()
        return Seconds(next(times), 0.5)

    monkeypatch.setattr(benchmark, "seconds_of", interrupted)
    with pytest.raises(StopIteration):  # as Ctrl-C would, in the third of ten measurements
        evaluation(str(root), num_images=1, size=(48, 64), crf=False, half=False, rounds=2, **SMALL)
    lines = capsys.readouterr().out.splitlines()[-3:]
    assert lines[0].startswith("  plain loop ")
    assert lines[1].startswith("  validate ")
    assert "0.50× as fast (0.50…0.50)     0.50 images/s    0.50 s of the processor" in lines[1]
    assert lines[2].split() == ["predict", "not", "measured"]


def test_nothing_is_begun_when_the_minutes_are_over(root, capsys):
    evaluation(str(root), num_images=1, size=(48, 64), crf=False, minutes=1e-9, **SMALL)
    _, over, _, *lines = capsys.readouterr().out.splitlines()
    assert over == "--minutes are over"
    assert len(lines) == 5
    assert all(line.endswith("not measured") for line in lines)


def test_a_network_of_other_classes_is_refused(root, trained):
    with pytest.raises(UserError, match="7 classes, not 21"):
        evaluation(str(root), ckpt_path=str(trained))
