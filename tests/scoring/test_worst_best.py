import numpy as np
import pytest
import torch
from PIL import Image

from deeplab_lit.crf import DenseCRF
from deeplab_lit.scoring import worst_best as extremes
from deeplab_lit.scoring.crf_scores import CRFScores
from deeplab_lit.scoring.per_image import ImageScores
from deeplab_lit.scoring.worst_best import WorstAndBest, small


@pytest.fixture
def module(make_module):
    module = make_module()
    torch.nn.init.normal_(module.net.head.branches[0].weight, std=0.5)
    return module


def run(module, data, trainer_of, folder, monkeypatch, crf=False, **options):
    """Captions and samples of worst_best.png."""
    shown = []

    def comparison(samples, classes, titles, captions):
        shown.extend(zip(captions, samples, strict=True))
        return Image.new("RGB", (2, 2))

    monkeypatch.setattr(extremes, "comparison", comparison)
    callbacks = [WorstAndBest(folder, num_images=2), ImageScores(folder)]
    if crf:
        see = (callbacks[0].see_refined,)
        callbacks.append(CRFScores(DenseCRF(bi_rgb_std=20, backend="torch"), see=see))
    trainer_of(callbacks=callbacks, **options).validate(module, data, verbose=False)
    return shown


def test_they_are_those_of_lowest_and_highest_score(
    module, make_data, make_trainer, tmp_path, monkeypatch
):
    data = make_data(val_size=9, eval_batch_size=2)
    shown = run(module, data, make_trainer, tmp_path, monkeypatch, crf=True)
    rows = np.genfromtxt(tmp_path / "images.csv", delimiter=",", names=True, dtype=None)
    order = [str(row["id"]) for row in np.sort(rows, order=("miou", "id"))]
    assert [caption.split()[-1] for caption, _ in shown] == [*order[:2], *order[:-3:-1]]
    assert [caption.split()[0] for caption, _ in shown] == ["worst"] * 2 + ["best"] * 2
    split = data.split("val")
    for caption, (image, truth, prediction, refined) in shown:
        expected = split.read(list(split.ids).index(caption.split()[-1]))
        np.testing.assert_array_equal(image, expected[0])
        np.testing.assert_array_equal(truth, expected[1])
        assert prediction.shape == refined.shape == truth.shape


@pytest.mark.parametrize(("images", "expected"), [(1, 1), (2, 2), (3, 2), (5, 4)])
def test_few_images_are_shown_once_each(
    module, make_data, make_trainer, tmp_path, monkeypatch, images, expected
):
    data = make_data(val_size=images)
    shown = run(module, data, make_trainer, tmp_path, monkeypatch)
    assert len({caption.split()[-1] for caption, _ in shown}) == len(shown) == expected


def test_large_images_are_kept_small_and_labels_stay_labels():
    labels = torch.full((100, 2000), 7)
    labels[:, 1000:] = 3
    assert small(labels).shape == (24, 480)
    assert set(np.unique(small(labels))) == {3, 7}
    image = torch.zeros(3, 100, 2000, dtype=torch.uint8).permute(1, 2, 0)
    assert small(image).shape == (24, 480, 3)
    assert small(labels[:, :50]).shape == (100, 50)
