import json
import math
from shutil import copytree

import numpy as np
import pytest
from PIL import Image, ImageDraw

from deeplab_lit.data import ADE20K, VOC, DataError, Folder, Images
from deeplab_lit.data.check import Summary
from deeplab_lit.prepare.data_check import LENGTH, check, class_plot, most_frequent
from deeplab_lit.prepare.voc import prepare_voc
from deeplab_lit.training.losses import ClassWeighted


@pytest.fixture
def root(tmp_path, files):
    """A folder of 3 train and 2 val images of 2 classes."""
    for split, number in (("train", 3), ("val", 2)):
        for i in range(number):
            for kind, content in (("images", files.jpg(i)), ("labels", files.png(files.mask(1)))):
                suffix = "jpg" if kind == "images" else "png"
                path = tmp_path / f"mine/{kind}/{split}/{split}{i}.{suffix}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
    (tmp_path / "mine/classes.txt").write_text("sky\nroad\n")
    return tmp_path / "mine"


def test_a_data_set_without_fault_is_summed_up(root, tmp_path, capsys):
    plot = tmp_path / "new/plot.png"
    assert check(Folder(str(root)), str(plot), 2) == 0
    shown = capsys.readouterr().out
    assert shown.index("Folder train: 3 images, 0.00%") < shown.index("Folder val: 2 images")
    assert "Folder: nothing is wrong" in shown
    with Image.open(plot) as picture:
        assert picture.format == "PNG"


def test_all_that_is_wrong_is_listed(root, files, tmp_path, capsys):
    (root / "images/train/train0.jpg").write_bytes(b"")
    (root / "labels/train/train2.png").write_bytes(files.png(files.mask(2)))
    for name in ("val0", "val1"):
        (root / f"labels/val/{name}.png").unlink()
    assert check(Folder(str(root)), str(tmp_path / "plot.png"), 2) == 1
    shown = capsys.readouterr()
    problems = shown.err[shown.err.index(str(root)) :].splitlines()
    assert [line.split(":")[0].split()[0].rpartition("/")[2] for line in problems] == [
        *("train0.jpg", "train2.png", "val0.png", "val1.png")
    ]
    assert "error: 4 problems" in shown.out
    assert "Folder train: 1 image, 0.00% of its pixels void" in shown.out


def test_a_cause_that_many_files_share_is_said_once_more_at_the_end():
    value = "mask value 11, which is neither one of the 5 classes nor void"
    held = [f"{i}.png: {value}; the mask holds {i}, 11. Correct the mask" for i in range(4)]
    assert most_frequent([*held, "x.jpg is missing"]) == f"; most frequent (4): {value}"
    assert most_frequent(held[:3]) == ""
    assert most_frequent(["a.png is missing"] * 5) == ""


def test_a_split_that_is_not_there_does_not_hide_the_other(root, tmp_path, capsys):
    assert check(Folder(str(root), val_split="test"), str(tmp_path / "plot.png"), 1) == 1
    shown = capsys.readouterr()
    assert "Folder train: 3 images" in shown.out
    assert "images/test: no images there" in shown.err


def test_images_in_both_splits_are_mentioned(tmp_path, source, voc_archives, capsys):
    prepare_voc(source)
    data = VOC(str(source.root), train_split="trainval", val_split="train")
    assert check(data, str(tmp_path / "plot.png"), 1) == 0
    assert "WARNING: 2 images are in both splits" in capsys.readouterr().out
    assert check(VOC(str(source.root)), str(tmp_path / "plot.png"), 1) == 0
    assert "WARNING" not in capsys.readouterr().out


def test_one_split_for_both_is_read_once(root, tmp_path, capsys):
    assert check(Folder(str(root), train_split="val"), str(tmp_path / "plot.png"), 1) == 0
    assert capsys.readouterr().out.count("Folder val: 2 images") == 1


def test_pseudo_labels_are_what_is_checked(root, files, tmp_path, capsys):
    pseudo = tmp_path / "pseudo"
    pseudo.mkdir()
    data = Folder(str(root), mask_dir=str(pseudo))
    for i, values in enumerate((files.mask(1), np.full((20, 30), 255), np.full((20, 30), 255))):
        (pseudo / f"train{i}.png").write_bytes(files.png(values))
    assert check(data, str(tmp_path / "plot.png"), 1) == 0
    shown = capsys.readouterr().out
    assert f"masks of {pseudo}: 3 images, 66.67%" in shown
    assert "Against the ground truth of 3 images: mIoU " in shown
    (pseudo / "train0.png").write_bytes(files.png(np.full((20, 30), 1)))
    assert check(data, str(tmp_path / "plot.png"), 1) == 1
    assert "3 masks hold no class but road" in capsys.readouterr().err


def test_what_masks_prove_is_a_problem_and_what_they_suggest_a_warning(
    root, files, tmp_path, capsys
):
    (root / "classes.txt").write_text("sky\nroad\ncar\n")
    assert check(Folder(str(root)), str(tmp_path / "plot.png"), 1) == 0
    shown = capsys.readouterr().out
    assert "WARNING: no mask of Folder train holds class car" in shown
    assert "WARNING: no mask of Folder val holds class car" in shown
    assert "nothing is wrong with the files; see the 2 warnings above" in shown
    for path in root.glob("labels/*/*.png"):
        path.write_bytes(files.png(255 * files.mask(1)))
    assert check(Folder(str(root)), str(tmp_path / "plot.png"), 1) == 1
    assert "no class but sky" in capsys.readouterr().err


def test_damaged_jpegs_are_named_although_they_can_be_read(root, tmp_path, capfd):
    early, odd = root / "images/train/train0.jpg", root / "images/val/val1.jpg"
    data = early.read_bytes()
    early.write_bytes(data[: len(data) * 3 // 4] + b"\xff\xd9")
    odd.write_bytes(odd.read_bytes()[:-2] + b"\x55" * 20 + b"\xff\xd9")
    assert check(Folder(str(root)), str(tmp_path / "plot.png"), 2) == 1
    shown = capfd.readouterr()
    assert "train0.jpg: cannot be read as an image (the data end early" in shown.err
    assert "val1.jpg: damaged, but it can be read; look at it (libjpeg: Corrupt" in shown.out
    assert "error: 1 problem" in shown.out


def test_what_is_passed_over_turned_or_named_otherwise_is_said(root, tmp_path, capsys):
    exif = Image.Exif()
    exif[0x0112] = 3
    with Image.open(root / "images/train/train1.jpg") as image:
        image.load()
    image.save(root / "images/train/train1.jpg", exif=exif)
    (root / "images/train/x.heic").touch()
    for i in range(2):
        (root / f"labels/val/val{i}.png").rename(root / f"labels/val/val{i}_mask.png")
    assert check(Folder(str(root)), str(tmp_path / "plot.png"), 2) == 1
    shown = capsys.readouterr()
    assert "images/train: 1 file is passed over" in shown.out
    assert "train1.jpg: EXIF orientation 3 turns or mirrors" in shown.out
    assert "val0_mask.png: if that is the mask of val0, rename it to val0.png" in shown.err


def test_masks_in_colors_are_summed_up_as_classes(root, tmp_path, capsys):
    (root / "classes.txt").write_text("sky 0 0 0\nroad 9 8 7\n")
    for path in root.glob("labels/*/*.png"):
        with Image.open(path) as image:
            values = np.asarray(image)
        Image.fromarray(values[..., None] * np.array([9, 8, 7], np.uint8)).save(path)
    assert check(Folder(str(root)), str(tmp_path / "plot.png"), 2) == 0
    assert "nothing is wrong" in capsys.readouterr().out


RED, GREEN, BLUE = (200, 10, 10), (10, 200, 10), (10, 10, 200)
CLASSES = {"sky": RED, "road": GREEN, "car": BLUE}


def summary(title, pixels):
    return Summary(title, np.array(pixels), np.array(pixels) > 0, np.array(pixels))


def longest_runs(picture, color):
    """Lengths of the bars of a color, in pixels, from top to bottom: one for each bar."""
    rows = (np.asarray(picture) == color).all(axis=2).sum(axis=1)
    starts = np.flatnonzero(np.diff(np.concatenate([[0], rows])) > 0)
    return [int(rows[start]) for start in starts]


def test_bars_are_as_long_as_the_logarithm_of_the_share():
    plot = class_plot([summary("X train", [9_000, 999, 1])], CLASSES)
    for color, share in ((RED, 0.9), (GREEN, 0.0999), (BLUE, 1e-4)):
        (length,) = longest_runs(plot, color)
        assert length == pytest.approx(LENGTH * (1 + np.log10(share) / 5), abs=3)


def test_each_split_has_its_bar_and_an_absent_class_has_none():
    plot = class_plot([summary("X train", [1, 1, 0]), summary("X val", [0, 1, 1])], CLASSES)
    assert [len(longest_runs(plot, color)) for color in (RED, GREEN, BLUE)] == [1, 2, 1]


def test_many_classes_stand_in_columns():
    names = ADE20K.classes
    plot = class_plot([summary("ADE20K train", np.ones(150, int))], names)
    assert plot.height < 1200
    pixels = {tuple(pixel) for row in np.asarray(plot) for pixel in row.tolist()}
    assert set(names.values()) <= pixels


def test_a_class_too_rare_for_a_bar_is_not_called_nothing(monkeypatch):
    texts = []
    draw = ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw, "text", lambda *args, **kw: texts.append(args[2]) or draw(*args, **kw)
    )
    class_plot([summary("X train", [10_000_000, 1, 0])], CLASSES)
    assert "below 0.001%" in texts
    assert "none" in texts
    assert "0.000%" not in texts


def test_the_data_to_validate_on_and_images_without_labels_are_checked_too(
    root, files, tmp_path, capsys
):
    other = tmp_path / "other"
    copytree(root, other)
    (other / "classes.txt").write_text("road\nsky\n")  # the same masks, the other way round
    data, val, plot = Folder(str(root)), Folder(str(other)), str(tmp_path / "plot.png")
    assert check(data, plot, 1, val, Images(str(other / "images"))) == 0
    shown = capsys.readouterr().out
    assert "Folder train: 3 images" in shown
    assert "val_data: Folder val: 2 images" in shown
    assert "unlabeled_data: Images: 5 images" in shown
    (sky,) = [line.split() for line in shown.splitlines() if line.startswith("sky ")]
    of_train, of_val = (float(share.rstrip("%")) for share in sky[1::2])
    assert of_train + of_val == 100 != 2 * of_train  # val's sky is what train calls road

    (other / "labels/val/val0.png").write_bytes(files.png(files.mask(2)))
    (other / "images/train/train1.jpg").write_bytes(b"")
    assert check(data, plot, 1, val, Images(str(other / "images"))) == 1
    err = capsys.readouterr().err
    assert "val0.png" in err
    assert "train1.jpg" in err


def test_the_masks_of_unlabeled_images_are_checked_too(root, files, tmp_path, capsys):
    masks, plot = tmp_path / "pseudo", str(tmp_path / "plot.png")
    copytree(root / "labels/val", masks)
    target = Images(str(root / "images/val"), mask_dir=str(masks))
    assert check(Folder(str(root)), plot, 1, None, target) == 0
    assert f"Images, masks of {masks}: 2 images" in capsys.readouterr().out
    (masks / "val0.png").write_bytes(files.png(files.mask(7)))
    assert check(Folder(str(root)), plot, 1, None, target) == 1
    assert "pseudo/val0.png: mask value 2, 3" in capsys.readouterr().err
    (masks / "val0.png").unlink()
    target = Images(str(root / "images/val"), mask_dir=str(masks))
    assert check(Folder(str(root)), plot, 1, None, target) == 1
    assert "pseudo/val0.png is missing" in capsys.readouterr().err


def test_a_data_set_of_other_classes_cannot_be_validated_on(root, tmp_path, capsys):
    other = tmp_path / "other"
    copytree(root, other)
    (other / "classes.txt").write_text("sea\nroad\n")
    plot = str(tmp_path / "plot.png")
    assert check(Folder(str(root)), plot, 1, Folder(str(other))) == 1
    assert "Folder has other classes than are trained" in capsys.readouterr().err


def test_weights_of_the_classes_are_written_and_are_those_of_the_pixels(root, files, tmp_path):
    """Every mask has void in some pixels; the second one lacks road."""
    masks = [files.mask(1), np.zeros_like(files.mask(1)), files.mask(1)]
    for i, mask in enumerate(masks):
        mask[0] = 255
        (root / f"labels/train/train{i}.png").write_bytes(files.png(mask))
    file = tmp_path / "new/weights.json"
    assert check(Folder(str(root)), str(tmp_path / "p.png"), 2, weights=str(file)) == 0
    content = json.loads(file.read_text())
    pixels = [sum(int((mask == c).sum()) for mask in masks) for c in (0, 1, 255)]
    assert content["data"] == "Folder/mine:train"
    assert (content["images"], content["void"], content["masks"]) == (3, pixels[2], None)
    assert (content["classes"], content["pixels"]) == (["sky", "road"], pixels[:2])
    assert content["image_pixels"] == [3 * masks[0].size, 2 * masks[0].size]
    f = [pixels[0] / (3 * masks[0].size), pixels[1] / (2 * masks[0].size)]
    assert content["weights"] == {
        "enet": pytest.approx([1 / math.log(1.02 + n / sum(pixels)) for n in pixels[:2]]),
        "median_frequency": pytest.approx([np.median(f) / f[0], np.median(f) / f[1]]),
    }
    assert ClassWeighted(file=str(file), rule="enet").weights == content["weights"]["enet"]


def test_a_folder_is_no_file_to_write_weights_to(root, tmp_path):
    with pytest.raises(DataError, match="is a folder, expected the name of a file"):
        check(Folder(str(root)), str(tmp_path / "p.png"), 2, weights=str(tmp_path))


def test_no_weights_are_written_of_what_has_a_problem(root, tmp_path, capsys):
    (root / "images/train/train0.jpg").write_bytes(b"")
    file = tmp_path / "weights.json"
    assert check(Folder(str(root)), str(tmp_path / "p.png"), 2, weights=str(file)) == 1
    assert not file.exists()
    assert f"{file} is not written" in capsys.readouterr().out
