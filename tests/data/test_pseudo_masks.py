import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from deeplab_lit.data import VOC, Cityscapes, DataError, Folder, Shapes
from deeplab_lit.data.class_maps import write_probabilities

TRAIN = ["2007_1", "2007_2", "2008_3"]
SIZE = 24, 32


@pytest.fixture
def cams(tmp_path):
    """IRN's maps of VOC's training images: aeroplane on the left, person in the middle."""
    maps = np.zeros((2, *SIZE), np.float32)
    maps[0, :, :8] = 0.9
    maps[1, :, 12:20] = 0.5
    (tmp_path / "cams").mkdir()
    for id in TRAIN:
        content = {"keys": torch.tensor([0, 14]), "high_res": maps}
        np.save(tmp_path / f"cams/{id}.npy", content)
    return str(tmp_path / "cams")


@pytest.fixture
def unlabeled_voc(voc_root):
    """VOC's images and lists, without any mask of its training images."""
    for id in TRAIN:
        (voc_root / f"SegmentationClass/{id}.png").unlink()
    return str(voc_root)


def columns(mask):
    return {int(mask[5, x]) for x in (0, 7)}, {int(mask[5, x]) for x in (12, 19)}, int(mask[5, 30])


def test_a_list_of_ids_and_class_maps_are_enough_to_train_on_voc(unlabeled_voc, cams):
    data = VOC(unlabeled_voc, mask_dir=cams, mask_rule="threshold:0.15")
    split = data.training()
    assert split.ids == TRAIN
    assert columns(split.read(0)[1]) == ({1}, {15}, 0)
    assert split.content(0, image=False).indices[[0, 1, 15]].sum() == 24 * 32
    assert data.truth() is None
    assert pickle.loads(pickle.dumps(split)).read(1)[1].max() == 15  # for a loader's workers


def test_uncertain_pixels_are_void(unlabeled_voc, cams):
    data = VOC(unlabeled_voc, mask_dir=cams, mask_rule="power:1,certain:0.6")
    assert columns(data.training().read(0)[1]) == ({1}, {255}, 0)  # .5 of .5 + .5


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({}, r"2007_1\.npy: these maps have no background and need a rule"),
        ({"mask_rule": "0.15"}, r"'0\.15' for maps: expected threshold:T"),
        ({"mask_values": "labels", "mask_rule": "power:1"}, "leave out mask_values labels"),
        ({"mask_values": "values"}, "mask_values must be indices or labels"),
    ],
)
def test_options_that_do_not_go_with_the_maps_are_refused(unlabeled_voc, cams, options, sentence):
    with pytest.raises(DataError, match=sentence):
        VOC(unlabeled_voc, mask_dir=cams, **options).training().read(0)


def test_a_rule_for_pictures_is_refused(voc_root):
    masks = str(voc_root / "SegmentationClass")
    with pytest.raises(DataError, match=r"power:1 is for class maps .* as 2007_1\.png: leave"):
        VOC(str(voc_root), mask_dir=masks, mask_rule="power:1").training()


def test_probabilities_and_label_arrays_are_masks_too(unlabeled_voc, tmp_path):
    probabilities = np.zeros((21, *SIZE), np.float32)
    probabilities[3] = 1
    write_probabilities(tmp_path / "pseudo/2007_1.npz", probabilities)
    np.save(tmp_path / "pseudo/2007_2.npy", np.full(SIZE, 4))
    np.save(tmp_path / "pseudo/2008_3.npy", np.full((2, 2), 4))
    split = VOC(unlabeled_voc, mask_dir=str(tmp_path / "pseudo")).training()
    assert [int(split.read(i)[1].max()) for i in (0, 1)] == [3, 4]
    with pytest.raises(DataError, match=r"2008_3\.npy: labels of 2×2 .* for an image of 32×24"):
        split.read(2)


def test_small_maps_follow_the_turn_of_their_image(unlabeled_voc, cams, voc_root):
    exif = Image.Exif()
    exif[0x0112] = 6
    file = voc_root / "JPEGImages/2007_1.jpg"
    Image.new("RGB", (40, 80)).save(file, exif=exif)  # 80×40 as it is read
    split = VOC(unlabeled_voc, mask_dir=cams, mask_rule="power:1").training()
    with pytest.raises(DataError, match=r"32×24 \(width × height\) for an image of 80×40"):
        split.read(0)
    Image.new("RGB", (48, 64)).save(file, exif=exif)
    assert split.read(0)[1].shape == (48, 64)


@pytest.mark.parametrize("there", [["2007_2"], TRAIN])
def test_the_ground_truth_that_is_there_is_found(voc_root, there):
    for id in set(TRAIN) - set(there):
        (voc_root / f"SegmentationClass/{id}.png").unlink()
    truth = VOC(str(voc_root), mask_dir="anywhere").truth()
    assert truth.ids == there
    with Image.open(voc_root / "SegmentationClass/2007_2.png") as file:
        np.testing.assert_array_equal(truth.read(there.index("2007_2"))[1], np.asarray(file))


def test_train_aug_needs_its_list_alone(voc_root, write_list, write_image):
    data = VOC(str(voc_root), train_split="train_aug", mask_dir="anywhere")
    with pytest.raises(DataError, match=r"without labels needs the list .*train_aug\.txt"):
        data.images()
    write_list(voc_root / "ImageSets/Segmentation/train_aug.txt", [*TRAIN, "2009_6"])
    write_image(voc_root / "JPEGImages/2009_6.jpg")
    assert data.images().ids == [*TRAIN, "2009_6"]
    assert data.truth().ids == TRAIN  # SegmentationClass has no mask of SBD's images
    with pytest.raises(DataError, match=r"train_aug needs .*SegmentationClassAug"):
        data.labeled("train_aug")


def test_a_missing_image_is_named_where_masks_are_not_needed(unlabeled_voc, voc_root):
    (voc_root / "JPEGImages/2007_2.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 3 files are missing: .*JPEGImages/2007_2\.jpg"):
        VOC(unlabeled_voc).images()


def test_folder_needs_no_labels_of_images_with_masks(folder_root, tmp_path, write_mask):
    for i in range(5):
        (folder_root / f"labels/train/{i}.png").unlink()
        write_mask(tmp_path / f"pseudo/{i}.png", np.full(SIZE, 2))
    data = Folder(str(folder_root), mask_dir=str(tmp_path / "pseudo"))
    assert data.training().read(4)[1].max() == 2
    assert data.truth() is None


def test_masks_may_hold_the_values_of_the_label_files(city_root, tmp_path, write_mask):
    """Label ids of Cityscapes: car is 26, and class index 13."""
    ids = Cityscapes(str(city_root)).images().ids
    options = {"mask_dir": str(tmp_path / "pseudo"), "mask_values": "labels"}
    data = Cityscapes(str(city_root), **options)
    image, mask = Cityscapes(str(city_root)).training().read(0)
    for id in ids:
        write_mask(tmp_path / f"pseudo/{id}.png", np.full(mask.shape, 26))
    assert data.training().read(0)[1].tolist() == np.full(image.shape[:2], 13).tolist()
    assert data.training().label_values(19)[13] == 26
    with pytest.raises(DataError, match="mask value 26"):
        Cityscapes(str(city_root), mask_dir=options["mask_dir"]).training().read(0)


@pytest.mark.parametrize("options", [{"mask_rule": "power:1"}, {"mask_values": "labels"}])
def test_what_says_how_to_read_masks_needs_a_folder_of_masks(options):
    with pytest.raises(DataError, match="but there is none: give the folder"):
        Shapes(**options)
