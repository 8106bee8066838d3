import numpy as np
import pytest
import torch

from deeplab_lit.data import VOC, DataError, Folder
from deeplab_lit.data.check import Summary
from deeplab_lit.loading import DataModule
from deeplab_lit.scoring.mask_quality import confusion_with_void, quality_of, say_pseudo_labels

TRUE = np.array([[0, 0, 1], [1, 2, 255]], np.uint8)
MASK = np.array([[0, 255, 1], [0, 2, 1]], np.uint8)  # of 5 labeled pixels 1 void, 1 wrong


@pytest.fixture
def folder(tmp_path, write_mask, write_image):
    """Builds a data set of pseudo-labels: id → ground truth (None: there is none) and mask."""

    def build(masks, classes="background\ncat\ndog\n", **options):
        for split in ("train", "val"):
            for id, (true, mask) in masks.items():
                write_image(tmp_path / f"images/{split}/{id}.png", size=mask.shape)
                if true is not None or split == "val":
                    write_mask(
                        tmp_path / f"labels/{split}/{id}.png", mask if true is None else true
                    )
                write_mask(tmp_path / f"pseudo/{id}.png", mask)
        (tmp_path / "classes.txt").write_text(classes)
        return Folder(str(tmp_path), mask_dir=str(tmp_path / "pseudo"), **options)

    return build


def judged(data, check="full"):
    return quality_of(data, data.pseudo_labels(1, check), check, 1)


def test_a_hand_worked_confusion():
    counts = confusion_with_void(TRUE, MASK, 3)
    assert counts.tolist() == [[1, 0, 0, 1], [1, 1, 0, 0], [0, 0, 1, 0]]


def test_void_in_a_mask_is_no_error_and_is_scored_as_background_too(folder):
    quality = judged(folder({"a": (TRUE, MASK), "b": (TRUE, MASK)}))
    # IoU 1/2, 1/2, 1 where void is left out; 2/3, 1/2, 1 where it is background
    assert quality.scores.miou == pytest.approx(2 / 3)
    assert quality.miou_void_as_background == pytest.approx(13 / 18)
    assert quality.void_share == pytest.approx(0.2)
    kept = quality.as_dict()
    assert kept["images"] == kept["images_with_ground_truth"] == 2
    assert kept["iou"] == {"background": 0.5, "cat": 0.5, "dog": 1.0}
    text = quality.in_words()
    assert "ground truth of 2 images: mIoU 66.67 % over 3 classes" in text
    assert "without the 20.00% of the pixels that are void in the masks; 72.22 % with void" in text


def test_a_data_set_without_background_has_one_score(folder):
    quality = judged(folder({"a": (TRUE, MASK)}, "road\ncat\ndog\n"))
    assert quality.miou_void_as_background is None
    assert "background" not in quality.in_words()
    assert quality.as_dict()["miou_void_as_background"] == pytest.approx(2 / 3)


def test_one_class_or_nothing_in_common_is_no_mistake(folder):
    background = np.zeros((2, 3), np.uint8)
    one = judged(folder({"a": (background, MASK), "b": (background + 1, MASK)}))
    assert "–" in one.in_words() or one.scores.miou >= 0
    void = judged(folder({"a": (background + 255, MASK), "b": (background + 255, MASK)}))
    assert void.as_dict()["miou"] is None
    assert "mIoU – over 0 classes" in void.in_words()


def test_a_part_of_many_images_is_compared_unless_all_are_asked_for(folder, monkeypatch):
    masks = {f"{i:02}": (TRUE, MASK if i % 2 else TRUE) for i in range(40)}
    data = folder(masks)
    monkeypatch.setattr("deeplab_lit.data.check.MASKS", 20)
    quick, full = judged(data, "quick"), judged(data)
    assert (quick.compared, full.compared) == (20, 40)
    assert "the ground truth of 20 of 40 images" in quick.in_words()
    assert full.scores.miou == pytest.approx((3 / 4 + 3 / 4 + 1) / 3)  # by hand, of 4 + 5 pixels


def test_ground_truth_that_is_no_use_stops_nothing(folder, tmp_path, write_mask):
    data = folder({"a": (TRUE, MASK), "b": (TRUE, MASK), "c": (TRUE, MASK)})
    (tmp_path / "labels/train/b.png").write_bytes(b"damaged")
    write_mask(tmp_path / "labels/train/c.png", np.zeros((4, 4)))
    quality = judged(data)
    assert quality.compared == 1
    assert "2 cannot be compared, as " in quality.in_words()
    assert "b.png" in quality.in_words()


def test_without_ground_truth_nothing_is_compared(folder):
    assert judged(folder({"a": (None, MASK), "b": (None, MASK)})) is None


def test_a_broken_mask_is_refused(folder, tmp_path):
    data = folder({"a": (TRUE, MASK)})
    (tmp_path / "pseudo/a.png").write_bytes(b"damaged")
    nothing = Summary("", *np.zeros((3, 3), np.int64))
    with pytest.raises(DataError, match=r"pseudo/a\.png"):
        quality_of(data, nothing, "full", 1)


def test_the_images_of_voc_whose_ground_truth_is_there_are_compared(voc_root, tmp_path):
    """As pseudo-masks of train_aug are, beside VOC's own masks of train."""
    for i, id in enumerate(("2007_1", "2007_2", "2008_3")):
        maps = np.zeros((1, 24, 32), np.float32)
        maps[0, 12:] = 1
        (tmp_path / "cams").mkdir(exist_ok=True)
        np.save(tmp_path / f"cams/{id}.npy", {"keys": torch.tensor([i]), "high_res": maps})
    (voc_root / "SegmentationClass/2007_2.png").unlink()
    rule = {"mask_dir": str(tmp_path / "cams"), "mask_rule": "threshold:0.15"}
    data = VOC(str(voc_root), **rule)
    quality = judged(data)
    assert (quality.compared, quality.total) == (2, 3)
    assert "2 images (there is none of the other 1)" in quality.in_words()
    expected = np.zeros((21, 22), np.int64)
    for place, index in ((0, 0), (1, 2)):
        true, mask = data.truth().read(place)[1], data.training().read(index)[1]
        for t, m in zip(true.ravel().tolist(), mask.ravel().tolist(), strict=True):
            if t != 255:
                expected[t, m] += 1
    np.testing.assert_array_equal(quality.confusion.numpy(), expected)


def test_what_is_said_before_a_training_is_kept_in_its_record(folder, capsys):
    data = folder({"a": (TRUE, MASK), "b": (TRUE, TRUE)})
    datamodule = DataModule(data, num_workers=0)
    kept = say_pseudo_labels(datamodule)["pseudo_labels"]
    assert list(kept) == ["data"]
    assert kept["data"]["images_looked_at"] == 2
    assert kept["data"]["void_share"] == pytest.approx(2 / 12)
    against = kept["data"]["against_ground_truth"]
    assert against["miou"] == pytest.approx((3 / 4 + 3 / 4 + 1) / 3)
    out = capsys.readouterr().out
    assert "2 images, 16.67% of their pixels void" in out
    assert "mIoU 83.33 % over 3 classes" in out
    assert say_pseudo_labels(DataModule(Folder(str(data.root)), num_workers=0)) == {}
