from shutil import rmtree

import numpy as np
import pytest

from deeplab_lit.data import Cityscapes, DataError
from deeplab_lit.data.check import preflight
from deeplab_lit.data.meaning import refuse_proved

NAMES = [
    *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign"),
    *("vegetation", "terrain", "sky", "person", "rider", "car", "truck", "bus", "train"),
    *("motorcycle", "bicycle"),
]
TRAIN_ID = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11}
TRAIN_ID |= {25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18}


def test_classes_and_colors():
    assert list(Cityscapes.classes) == NAMES
    assert len(NAMES) == len(set(Cityscapes.classes.values())) == 19
    assert Cityscapes.classes["road"] == (128, 64, 128)
    assert Cityscapes.classes["car"] == (0, 0, 142)
    assert Cityscapes.classes["bicycle"] == (119, 11, 32)


def test_splits_are_the_frames_of_all_cities_in_order(city_root):
    data = Cityscapes(str(city_root))
    assert data.split("train").ids == [
        "aachen_000000_000019",
        "aachen_000001_000019",
        "zurich_000000_000019",
    ]
    assert data.split("val").ids == ["frankfurt_000000_000294"]


def test_label_ids_become_training_ids_and_the_rest_void(city_root):
    split = Cityscapes(str(city_root)).split("train")
    mask = split.read(2)[1]
    raw = np.resize([*range(34), 255], (24, 32))  # as in the fixture; 255 is the label −1
    expected = np.vectorize(lambda value: TRAIN_ID.get(value, 255))(raw)
    assert split.num_classes == 19
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("bad", [34, 40, 254])
def test_other_ids_are_refused(city_root, write_mask, bad):
    path = next((city_root / "gtFine/val").glob("*/*_labelIds.png"))
    values = np.full((24, 32), 7)
    values[3, 3] = bad
    write_mask(path, values)
    with pytest.raises(DataError, match=rf"labelIds\.png: mask value {bad},"):
        Cityscapes(str(city_root)).split("val").read(0)


def test_missing_mask_is_named(city_root):
    next((city_root / "gtFine/val").glob("*/*_labelIds.png")).unlink()
    with pytest.raises(DataError, match=r"gtFine/val/frankfurt/frankfurt_000000_000294_gtFine_la"):
        Cityscapes(str(city_root)).split("val")


def test_what_is_not_there_is_explained(city_root):
    data = Cityscapes(str(city_root))
    with pytest.raises(DataError, match=r"no labels.*predict"):
        data.split("test")
    with pytest.raises(DataError, match=r"leftImg8bit/trian.*no such images.*--data\.root.*trainv"):
        data.split("trian")
    with pytest.raises(DataError, match=r"--data\.root is missing"):
        Cityscapes()


def test_real_cityscapes(real):
    data = Cityscapes(real("cityscapes"))
    assert [len(data.split(name).ids) for name in ("train", "val")] == [2, 1]
    image, mask = data.split("val").read(0)
    assert image.shape == (1024, 2048, 3)
    assert mask.shape == (1024, 2048)
    assert set(np.unique(mask).tolist()) <= {*range(19), 255}
    assert np.bincount(mask[mask < 255]).argmax() in (0, 2, 8)  # road, building or vegetation


def test_folders_of_cities_may_have_any_name(city_root):
    for kind in ("leftImg8bit", "gtFine"):
        (city_root / kind / "val/frankfurt").rename(city_root / kind / "val/my west_side")
    data = Cityscapes(str(city_root))
    _, _, read = data.instances("val")
    (id,) = data.split("val").ids
    assert data.instance_map("val", id).parent.name == "my west_side"
    assert read(id).shape == data.split("val").read(0)[1].shape


def test_hidden_files_are_no_frames(city_root):
    for name in ("aachen/._aachen_000000_000019", ".cache/x"):
        path = city_root / f"leftImg8bit/train/{name}_leftImg8bit.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    assert len(Cityscapes(str(city_root)).split("train").ids) == 3


def test_one_name_in_two_cities_is_refused(city_root, write_image, write_mask):
    name = "val/bonn/frankfurt_000000_000294"
    write_image(city_root / f"leftImg8bit/{name}_leftImg8bit.png")
    write_mask(city_root / f"gtFine/{name}_gtFine_labelIds.png")
    with pytest.raises(DataError, match="have one name, frankfurt_000000_000294"):
        Cityscapes(str(city_root)).split("val")


SIZE = (24, 32)
VALUES = np.resize([*range(34), 255], SIZE)
EXPECTED = np.vectorize(lambda value: TRAIN_ID.get(value, 255))(VALUES)


def judged(data, split="val"):
    """What is said of a split of which nothing is refused."""
    found = preflight(data.labeled(split), f"Cityscapes {split}", "full", 1, 19)
    return refuse_proved(data.findings(None, found))


def add_coarse(root, write_image, write_mask):
    """Add an image of train_extra, and coarse labels of it and of the fine images."""
    write_image(root / "leftImg8bit/train_extra/erlangen/erlangen_000000_000000_leftImg8bit.png")
    for image in root.glob("leftImg8bit/*/*/*.png"):
        name = image.name.replace("_leftImg8bit", "_gtCoarse_labelIds")
        write_mask(
            root / f"gtCoarse/{image.parent.relative_to(root / 'leftImg8bit')}/{name}", VALUES
        )


def test_trainval_is_train_and_val(city_root):
    data = Cityscapes(str(city_root), train_split="trainval")
    assert data.training().ids == data.split("train").ids + data.split("val").ids
    assert data.shared(data.training(), data) == 1
    assert Cityscapes(str(city_root)).shared(data.training(), Cityscapes(str(city_root))) == 1
    _, _, read = data.instances("trainval")
    assert read("aachen_000000_000019").shape == SIZE


def test_coarse_labels_are_those_of_gt_coarse(city_root, write_image, write_mask):
    add_coarse(city_root, write_image, write_mask)
    for mask in city_root.glob("gtFine/*/*/*_labelIds.png"):
        write_mask(mask, np.full(SIZE, 7))
    data = Cityscapes(str(city_root))
    assert data.split("train_extra").ids == ["erlangen_000000_000000"]
    for split in ("train_extra", "train_coarse", "val_coarse", "trainval_coarse"):
        np.testing.assert_array_equal(data.split(split).read(0)[1], EXPECTED)
    assert (data.split("train").read(0)[1] == 0).all()
    assert data.split("trainval_coarse").ids == data.split("trainval").ids
    assert data.shared(data.split("train_extra"), data) == 0
    assert data.shared(data.split("trainval_coarse"), data) == 1
    rmtree(city_root / "leftImg8bit/train_extra")
    with pytest.raises(DataError, match=r"leftImg8bit_trainextra\.zip and gtCoarse\.zip"):
        data.split("train_extra")


def test_files_of_train_ids_are_read_where_no_label_ids_are_and_that_is_said(city_root, write_mask):
    for mask in city_root.glob("gtFine/val/*/*_labelIds.png"):
        train_ids = mask.with_name(mask.name.replace("labelIds", "labelTrainIds"))
        write_mask(train_ids, EXPECTED)
        assert (Cityscapes(str(city_root)).split("val").pairs[0].mask) == mask
        mask.unlink()
    data = Cityscapes(str(city_root))
    np.testing.assert_array_equal(data.labeled("val").read(0)[1], EXPECTED)
    assert judged(data) == [
        "Cityscapes val: there is no …_labelIds.png, so …_labelTrainIds.png is read"
    ]
    write_mask(data.labeled("val").pairs[0].mask, VALUES)
    with pytest.raises(
        DataError, match=r"labelTrainIds\.png: mask value 19, .*A labelIds file hol"
    ):
        judged(data)


def test_some_files_of_train_ids_do_not_stand_in_for_label_ids(city_root, write_mask):
    first, *_ = sorted(city_root.glob("gtFine/train/*/*_labelIds.png"))
    first.rename(first.with_name(first.name.replace("labelIds", "labelTrainIds")))
    with pytest.raises(DataError, match=r"1 of 6 files are missing: .*_labelIds\.png"):
        Cityscapes(str(city_root)).split("train")


def test_images_alone_are_enough_for_a_target_without_labels(city_root, write_image):
    rmtree(city_root / "gtFine")
    write_image(city_root / "leftImg8bit/test/berlin/berlin_000000_000019_leftImg8bit.png")
    assert len(Cityscapes(str(city_root)).images().ids) == 3
    test = Cityscapes(str(city_root), train_split="test").images()
    assert test.ids == ["berlin_000000_000019"]
    assert test.image(0).shape == (*SIZE, 3)


@pytest.mark.parametrize(
    "name",
    ["{id}.png", "{id}_leftImg8bit.png", "{city}/{id}_leftImg8bit.png", "train/{city}/{id}.png"],
)
def test_masks_that_predict_has_written_are_found(city_root, tmp_path, write_mask, name):
    """Those of one command: predict --images leftImg8bit, …/train, or …/train/*/*.png."""
    rmtree(city_root / "gtFine")
    ids = [f"{city}_00000{i}_000019" for city, i in (("aachen", 0), ("aachen", 1), ("zurich", 0))]
    for index, id in enumerate(ids):
        path = tmp_path / "pseudo" / name.format(id=id, city=id.split("_")[0])
        write_mask(path, np.full(SIZE, index))
    data = Cityscapes(str(city_root), mask_dir=str(tmp_path / "pseudo"))
    assert data.training().ids == ids
    assert [data.training().read(i)[1].max() for i in range(3)] == [0, 1, 2]
    write_mask(tmp_path / f"pseudo/x/{ids[1]}_leftImg8bit.png")
    with pytest.raises(DataError, match=r"aachen_000001_000019.* and .* are masks of one image"):
        Cityscapes(str(city_root), mask_dir=str(tmp_path / "pseudo")).training()


def test_a_pseudo_label_that_is_missing_is_named(city_root, tmp_path, write_mask):
    write_mask(tmp_path / "pseudo/aachen_000000_000019_leftImg8bit.png")
    with pytest.raises(DataError, match=r"2 of 6 files are missing: .*/aachen_000001_000019\.png"):
        Cityscapes(str(city_root), mask_dir=str(tmp_path / "pseudo")).training()
