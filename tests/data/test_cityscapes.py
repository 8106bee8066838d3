import numpy as np
import pytest

from deeplab_lit.data import Cityscapes, DataError

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
    with pytest.raises(DataError, match=r"leftImg8bit/trian.*no such images.*--data\.root"):
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
