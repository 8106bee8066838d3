import pytest

from deeplab_lit.benchmark.evaluation import evaluation
from deeplab_lit.errors import UserError

SMALL = {"backbone": "resnet6_half", "norm": "batch", "scales": (1.0,), "atrous_rates": (1, 2)}


def test_validate_and_predict_score_what_the_plain_loop_scores(root, capsys):
    pytest.importorskip("pydensecrf", reason="pydensecrf is not installed")
    evaluation(str(root), num_images=3, size=(48, 64), rounds=2, **SMALL)
    title, *lines = capsys.readouterr().out.splitlines()
    lines = [line for line in lines if "as fast" in line]
    assert "3 images (the first of 64×48), resnet6_half, aspp, scales [1.0], CPU" in title
    ours = ["validate{}", "predict{}", "validate{}, bfloat16", "predict{}, bfloat16"]
    alone = ["plain loop", *(name.format("") for name in ours)]
    with_crf = ["plain loop + pydensecrf", *(name.format(" + CRF") for name in ours)]
    assert [line.split("  ")[1] for line in lines] == alone + with_crf
    miou = [float(line.rsplit("mIoU ")[1].rstrip(" %")) for line in lines]
    assert miou[0] == miou[1] == miou[2]
    assert miou[5] == pytest.approx(miou[6], abs=0.2)  # pydensecrf rounds otherwise
    assert miou[6] == miou[7]
    assert all(float(line.split("×")[0].split()[-1]) > 0 for line in lines)


def test_a_network_of_other_classes_is_refused(root, trained):
    with pytest.raises(UserError, match="7 classes, not 21"):
        evaluation(str(root), ckpt_path=str(trained))
