import json
import shlex
from itertools import product

import numpy as np
import pytest
from PIL import Image

from deeplab_lit.data import Folder, Shapes
from deeplab_lit.data.image import DataError
from deeplab_lit.prepare.__main__ import main
from deeplab_lit.prepare.degrade import degrade
from deeplab_lit.prepare.mask_errors import FATES, MaskErrors, degraded, objects_of

NONE = {"eroded": 0, "dilated": 0, "missing": 0, "void": 0}


def result(mask, background=0, seed=0, **errors):
    return degraded(
        np.array(mask, np.uint8),
        MaskErrors(**NONE | errors),
        background,
        np.random.default_rng(seed),
    )


def square(low=10, high=20, size=30, index=3):
    mask = np.zeros((size, size), np.uint8)
    mask[low:high, low:high] = index
    return mask


def slowly(inside, pixels, *, grow):
    """Dilate, or erode, pixel by pixel: whether one of the other kind is near enough."""
    height, width = inside.shape
    out = inside.copy()
    for y, x in product(range(height), range(width)):
        if inside[y, x] != grow:
            others = np.argwhere(inside == grow)
            if (((others - (y, x)) ** 2).sum(axis=1) <= pixels**2).any():
                out[y, x] = grow
    return out


@pytest.mark.parametrize("pixels", [1, 2, 2.5])
@pytest.mark.parametrize("fate", ["eroded", "dilated"])
def test_objects_shrink_and_grow_by_the_pixels_asked_for(fate, pixels):
    mask = square()
    mask[3:12, 14:18] = 3  # a corner that is no square's
    expected = slowly(mask == 3, pixels, grow=fate == "dilated")
    np.testing.assert_array_equal(result(mask, **{fate: 1, "pixels": pixels}).mask == 3, expected)


def test_nothing_is_taken_off_where_the_picture_ends():
    assert (result(square(0, 10), eroded=1, pixels=2).mask == square(0, 8)).all()


def test_a_thin_object_gets_thinner_and_does_not_vanish():
    mask = np.zeros((40, 40), np.uint8)
    mask[10:15] = 1
    mask[20:21] = 1
    rows = result(mask, eroded=1, pixels=9).mask[:, 20]
    assert np.flatnonzero(rows).tolist() == [11, 12, 13, 20]


@pytest.mark.parametrize(("height", "pixels"), [(100, 2), (300, 6)])
def test_without_pixels_it_is_a_share_of_the_shorter_side(height, pixels):
    mask = np.zeros((height, 400), np.uint8)
    mask[40:80, 40:80] = 1
    one, other = (result(mask, dilated=1, pixels=number) for number in (None, pixels))
    assert (one.mask == other.mask).all()


def test_a_missing_object_leaves_background_and_no_outline():
    mask = square()
    mask[9, 9:21] = mask[20, 9:21] = mask[9:21, 9] = mask[9:21, 20] = 255
    assert not result(mask, missing=1).mask.any()
    # and without a class of that name nobody knows what is there
    assert (result(square(index=3), missing=1, background=None).mask == 255).all()


def test_a_small_object_lies_on_a_large_one_that_grows():
    mask = square(5, 25) * (square(12, 15) == 0) + square(12, 15, index=1)
    assert ((result(mask, dilated=1, pixels=1).mask == 1) == (square(11, 16, index=1) == 1))[
        12:15, 12:15
    ].all()


def test_void_of_the_ground_truth_belongs_to_what_is_nearest():
    mask = np.zeros((6, 20), np.uint8)
    mask[:, 6:9], mask[:, 9:11], mask[:, 11:14], mask[:, 14:17] = 2, 255, 2, 255
    objects, classes = objects_of(mask, background=0)
    assert classes.tolist() == [2, 2]  # void was between them, so they are two
    assert objects[0].tolist() == [*[0] * 6, *[1] * 4, *[2] * 4, *objects[0, 14:17], 0, 0, 0]
    assert objects[0, 14] == 2
    assert objects[0, 16] == 0


def test_a_mask_of_void_stays_as_it_is():
    for background in (0, None):
        assert (result(np.full((5, 5), 255), background=background).mask == 255).all()


@pytest.mark.parametrize("void", [0, 0.1, 0.3, 1])
def test_the_share_of_void_is_exact(void):
    mask = Shapes(train_size=1).split("train").read(0)[1]
    there = (result(mask, void=void, eroded=0.5, missing=0.5).mask == 255).sum()
    assert there == round(void * mask.size)


def test_void_lies_near_borders_above_all_but_not_alone():
    near, far = [], []
    for seed in range(20):
        mask = square(25, 75, size=100)
        void = result(mask, void=0.3, seed=seed).mask == 255
        border = (square(23, 77, size=100) > 0) & ~(square(27, 73, size=100) > 0)
        near.append(void[border].mean())
        far.append(void[~border].mean())
    assert 0.5 < np.mean(near) < 0.9
    assert 0.15 < np.mean(far) < 0.3


def test_objects_have_the_fates_in_the_shares_asked_for():
    mask = np.zeros((200, 200), np.uint8)
    mask[::4, ::4] = 1  # 2,500 objects of a pixel
    fates = result(mask, eroded=0.1, dilated=0.2, missing=0.4, pixels=0.5).fates
    shares = np.bincount(fates, minlength=4) / 2500
    assert dict(zip(FATES, shares, strict=True)) == pytest.approx(
        {"unchanged": 0.3, "eroded": 0.1, "dilated": 0.2, "missing": 0.4}, abs=0.03
    )


@pytest.mark.parametrize(
    ("errors", "words"),
    [
        ({"void": 1.1}, "--void must be in 0…1, got 1.1"),
        ({"missing": -0.1}, "--missing must be in 0…1"),
        ({"missing": 0.5}, "expected a sum of 1 or less"),
        ({"pixels": 0}, "--pixels must be above 0"),
    ],
)
def test_errors_that_cannot_be_are_refused(errors, words):
    with pytest.raises(DataError, match=words):
        MaskErrors(**errors)


@pytest.fixture
def shapes():
    return Shapes(train_size=5)


def masks_in(out):
    return {path.name: path.read_bytes() for path in (out / "masks").iterdir()}


def test_an_image_has_the_same_errors_in_any_order_and_at_every_start(shapes, tmp_path, capsys):
    one, two = tmp_path / "one", tmp_path / "two"
    content = degrade(shapes, one, MaskErrors(), seed=0, num_workers=2)
    degrade(Shapes(train_size=3), two, MaskErrors(), seed=0, num_workers=1)
    before = masks_in(one)
    assert masks_in(two).items() < before.items()
    capsys.readouterr()
    (one / "masks/3.png").unlink()
    (one / "masks/1.png").write_bytes(before["1.png"][:200])
    untouched = (one / "masks/0.png").stat()
    assert degrade(shapes, one, MaskErrors(), seed=0, num_workers=2) == content
    assert "3 of 5 masks are there already" in capsys.readouterr().out
    assert masks_in(one) == before
    assert (one / "masks/0.png").stat() == untouched
    degrade(shapes, tmp_path / "other", MaskErrors(), seed=1, num_workers=2)
    assert not masks_in(tmp_path / "other").items() & before.items()


def test_other_errors_are_not_mixed_into_a_folder(shapes, tmp_path):
    degrade(shapes, tmp_path, MaskErrors(), seed=0, num_workers=1)
    with pytest.raises(DataError, match=r"were made with missing 0\.2, and now it is 0\.3"):
        degrade(shapes, tmp_path, MaskErrors(missing=0.3), seed=0, num_workers=1)
    with pytest.raises(DataError, match="were made with data Shapes:train, and now it is"):
        degrade(Shapes(style="night"), tmp_path, MaskErrors(), seed=0, num_workers=1)
    (tmp_path / "degraded.json").write_text("{")
    with pytest.raises(DataError, match=r"degraded\.json is damaged"):
        degrade(shapes, tmp_path, MaskErrors(), seed=0, num_workers=1)


def test_what_is_said_of_the_masks_is_what_they_hold(shapes, tmp_path, capsys):
    content = degrade(shapes, tmp_path, MaskErrors(), seed=0, num_workers=2)
    split, both, either, void = shapes.training(), np.zeros(7), np.zeros(7), 0
    for i, id in enumerate(split.ids):
        truth = split.read(i)[1]
        with Image.open(tmp_path / f"masks/{id}.png") as picture:
            mask = np.asarray(picture)
        counted = (truth != 255) & (mask != 255)
        void += (mask == 255).mean() / len(split.ids)
        for index in range(7):
            true, there = (truth == index) & counted, (mask == index) & counted
            both[index] += (true & there).sum()
            either[index] += (true | there).sum()
    assert list(content["iou"].values()) == pytest.approx(both / either)
    assert content["miou"] == pytest.approx((both / either).mean())
    assert content["share_void"] == pytest.approx(void)
    shown = capsys.readouterr().out
    assert f"{100 * content['miou']:.2f}" in shown
    assert "5 masks degraded, 30.00% of the pixels void" in shown
    assert json.loads((tmp_path / "degraded.json").read_text()) == content
    assert content["finished"]
    with Image.open(tmp_path / "examples.png") as picture:
        assert picture.width > 600


def test_drawn_images_are_trained_on_with_the_masks_of_their_names(shapes, tmp_path):
    degrade(shapes, tmp_path, MaskErrors(), seed=0, num_workers=1)
    training = Shapes(train_size=3, mask_dir=str(tmp_path / "masks")).training()
    assert list(training.ids) == ["0", "1", "2"]
    image, mask = training.read(2)
    np.testing.assert_array_equal(image, shapes.training().read(2)[0])
    with Image.open(tmp_path / "masks/2.png") as picture:
        np.testing.assert_array_equal(mask, np.asarray(picture))
    (tmp_path / "masks/1.png").unlink()
    with pytest.raises(DataError, match=r"1 of 6 files are missing: .*1\.png"):
        Shapes(train_size=3, mask_dir=str(tmp_path / "masks")).training()


@pytest.fixture
def root(tmp_path, files):
    """A folder of 3 training images and one to validate on, of 2 classes."""
    for name in ("train/a/0", "train/a/1", "train/2", "val/v"):
        for kind, content in (("images", files.jpg()), ("labels", files.png(files.mask(1)))):
            suffix = "jpg" if kind == "images" else "png"
            path = tmp_path / f"mine/{kind}/{name}.{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    (tmp_path / "mine/classes.txt").write_text("background\nroad\n")
    return tmp_path / "mine"


def test_from_the_command_line_to_masks_that_are_trained_on(root, tmp_path, capsys):
    out = tmp_path / "new/degraded"
    data = ["--data", "Folder", f"--data.root={root}"]
    assert main(["degrade", "--out", str(out), *data, "--missing=1", "--eroded=0", "--dilated=0",
                 "--void=0.5"]) == 0  # fmt: skip
    *_, to_score, following = capsys.readouterr().out.splitlines()
    assert following.startswith("Next  ")
    validate, fit = (shlex.split(line[12:]) for line in (to_score, following))
    assert validate[2:4] == ["deeplab_lit.validate", "--masks"]
    assert validate[5:] == [*data, "--data.val_split", "train", "--void_as", "skip"]
    assert fit[2:] == ["deeplab_lit.fit", *data, "--data.mask_dir", str(out / "masks")]
    training = Folder(str(root), mask_dir=fit[-1]).training()
    masks = [training.read(i)[1] for i in range(len(training.ids))]
    assert len(masks) == 3
    assert all(np.bincount(mask.ravel(), minlength=256)[[0, 255]].tolist() == [300, 300]
               for mask in masks)  # fmt: skip


def test_of_a_configuration_the_data_set_is_taken(root, tmp_path, capsys):
    config = tmp_path / "run.yaml"
    data = {"class_path": "deeplab_lit.data.Folder", "init_args": {"root": str(root)}}
    config.write_text(json.dumps({"model": {"lr": 1}, "data": data, "val_data": data}))
    other = tmp_path / "other.yaml"
    other.write_text("trainer: {max_steps: 1}")
    configs = ["-c", str(config), "--config", str(other)]
    assert main(["degrade", *configs, f"--out={tmp_path / 'out'}"]) == 0
    assert f"fit --config={config} --config={other} --data.mask_dir" in capsys.readouterr().out


def test_masks_of_a_network_and_broken_ones_are_refused(root, tmp_path, capsys):
    out = tmp_path / "out"
    with pytest.raises(DataError, match="takes the ground truth"):
        degrade(Folder(str(root), mask_dir="x"), out, MaskErrors(), seed=0, num_workers=1)
    (root / "labels/train/a/1.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"a/1\.png: cannot be read"):
        degrade(Folder(str(root)), out, MaskErrors(), seed=0, num_workers=1)
    assert len(list(out.rglob("*.png"))) == 2
    assert not json.loads((out / "degraded.json").read_text())["finished"]
