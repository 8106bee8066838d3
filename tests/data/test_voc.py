import numpy as np
import pytest
from PIL import Image

from deeplab_lit.data import VOC, DataError

NAMES = [
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat"),
    *("chair", "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant"),
    *("sheep", "sofa", "train", "tvmonitor"),
]
TRAIN, VAL, SBD = ["2007_1", "2007_2", "2008_3"], ["2007_4", "2008_5"], ["2009_6", "2010_7"]


@pytest.fixture
def aug(voc_root, write_mask):
    """SegmentationClassAug for every image, val ones too, as it is distributed."""
    folder = voc_root / "SegmentationClassAug"
    for seed, id in enumerate(TRAIN + VAL + SBD):
        write_mask(folder / f"{id}.png", np.full((24, 32), seed))
    return folder


def test_classes_and_colors():
    assert list(VOC.classes) == NAMES
    assert len(VOC.classes) == 21
    assert VOC.classes["person"] == (192, 128, 128)
    assert VOC.classes["tvmonitor"] == (0, 64, 128)


@pytest.mark.parametrize("up", [0, 1, 2])
def test_root_is_found_from_the_folders_above(voc_root, up):
    root = [voc_root, *voc_root.parents][up]
    assert VOC(str(root)).split("train").ids == TRAIN


def test_folder_without_voc_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"--data\.root .*no PASCAL VOC 2012 there"):
        VOC(str(tmp_path))
    with pytest.raises(DataError, match=r"--data\.root is missing"):
        VOC()


@pytest.mark.parametrize(
    ("name", "ids"), [("train", TRAIN), ("val", VAL), ("trainval", TRAIN + VAL)]
)
def test_splits_are_the_lists(voc_root, name, ids):
    split = VOC(str(voc_root)).split(name)
    assert split.ids == ids
    assert split.num_classes == 21
    image, mask = split.read(len(ids) - 1)
    with Image.open(voc_root / f"SegmentationClass/{ids[-1]}.png") as file:
        assert file.mode == "P"
        np.testing.assert_array_equal(mask, np.asarray(file))
    assert image.shape == (24, 32, 3)
    assert (mask[0] == 255).all()


def test_list_order_and_blank_lines(voc_root):
    (voc_root / "ImageSets/Segmentation/mine.txt").write_text("2008_3 \n\n2007_1\r\n")
    assert VOC(str(voc_root)).split("mine").ids == ["2008_3", "2007_1"]


def test_missing_list_names_the_splits_there_are(voc_root):
    with pytest.raises(DataError, match=r"minival\.txt does not exist.*: train, trainval, val"):
        VOC(str(voc_root)).split("minival")


def test_test_split_says_that_it_has_no_labels(voc_root):
    with pytest.raises(DataError, match=r"no labels.*predict"):
        VOC(str(voc_root)).split("test")


def test_listed_files_that_are_missing_are_named(voc_root, write_list):
    (voc_root / "SegmentationClass/2007_2.png").unlink()
    with pytest.raises(DataError, match=r"1 of 6 files are missing: .*SegmentationClass/2007_2\."):
        VOC(str(voc_root)).split("train")
    write_list(voc_root / "ImageSets/Segmentation/mine.txt", ["a", "b", "c"])
    with pytest.raises(DataError, match=r"6 of 6 .*JPEGImages/a\.jpg.* and 3 more"):
        VOC(str(voc_root)).split("mine")


def test_train_aug_without_a_list_is_every_mask_that_val_does_not_name(voc_root, aug):
    split = VOC(str(voc_root)).split("train_aug")
    assert split.ids == TRAIN + SBD
    assert [split.read(i)[1].max() for i in range(5)] == [0, 1, 2, 5, 6]
    assert sorted(VOC(str(voc_root)).split("trainval_aug").ids) == sorted(TRAIN + VAL + SBD)


@pytest.mark.parametrize("extra", [[], VAL])
def test_train_aug_follows_its_list_but_never_holds_val(voc_root, aug, write_list, extra):
    listed = ["2010_7", *extra, "2007_2"]
    write_list(voc_root / "ImageSets/Segmentation/train_aug.txt", listed)
    assert VOC(str(voc_root)).split("train_aug").ids == ["2010_7", "2007_2"]


def test_train_aug_from_sbd_keeps_voc_masks_and_never_holds_val(voc_root, sbd_root):
    data = VOC(str(voc_root), str(sbd_root))
    split = data.split("train_aug")
    assert split.ids == TRAIN + SBD
    np.testing.assert_array_equal(split.read(0)[1], data.split("train").read(0)[1])
    masks = [split.read(i)[1] for i in (3, 4)]
    assert [np.unique(mask).tolist() for mask in masks] == [[2], [3]]
    assert split.pairs[3].image == sbd_root / "img/2009_6.jpg"


def test_trainval_aug_from_sbd_adds_val(voc_root, sbd_root):
    assert VOC(str(voc_root), str(sbd_root)).split("trainval_aug").ids == TRAIN + VAL + SBD


def test_train_aug_without_its_masks_says_what_it_needs(voc_root):
    with pytest.raises(DataError, match=r"SegmentationClassAug.*--data\.sbd_root"):
        VOC(str(voc_root)).split("train_aug")


def test_real_voc(real):
    root = real("VOCdevkit")
    data = VOC(root)
    ids = {name: data.split(name).ids for name in ("train", "val", "trainval", "train_aug")}
    assert sorted(ids["train"] + ids["val"]) == sorted(ids["trainval"])
    assert set(ids["train"]) < set(ids["train_aug"])
    assert not set(ids["train_aug"]) & set(ids["val"])
    for name in ("val", "train_aug"):
        split = data.split(name)
        image, mask = split.read(len(split.ids) - 1)
        assert image.shape == (*mask.shape, 3)
        assert max(mask.shape) == 500
        assert set(np.unique(mask).tolist()) <= {*range(21), 255}


def test_hidden_files_are_no_images_of_train_aug(voc_root, write_mask):
    for id in ("2007_1", "2009_6"):
        write_mask(voc_root / f"SegmentationClassAug/{id}.png")
        (voc_root / f"SegmentationClassAug/._{id}.png").write_bytes(b"")
    assert VOC(str(voc_root)).split("train_aug").ids == ["2007_1", "2009_6"]
