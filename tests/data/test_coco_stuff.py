import numpy as np
import pytest

from deeplab_lit.data import CocoStuff10k, CocoStuff164k, DataError

# some lines of the authors' labels.txt, which counts from 1
LABELS = {
    1: "person",
    2: "bicycle",
    12: "street sign",
    26: "hat",
    44: "bottle",
    66: "mirror",
    71: "door",
    90: "toothbrush",
    91: "hair brush",
    92: "banner",
    102: "ceiling-other",
    112: "door-stuff",
    125: "gravel",
    133: "mirror-stuff",
    149: "road",
    157: "sky-other",
    169: "tree",
    173: "wall-other",
    182: "wood",
}
IDS = ["COCO_train2014_000000000077", "COCO_train2014_000000000149"]


@pytest.mark.parametrize("data", [CocoStuff10k, CocoStuff164k])
def test_classes_are_the_authors_182_from_zero(data):
    names = list(data.classes)
    assert len(names) == len(set(data.classes.values())) == 182
    assert {label: names[label - 1] for label in LABELS} == LABELS
    assert names[91:] == sorted(names[91:])  # stuff, in the order of the alphabet
    assert data.classes["person"] == (128, 0, 0)  # VOC's color of label 1


@pytest.fixture
def ten_k(tmp_path, write_image, write_mask, write_list):
    for seed, id in enumerate(IDS):
        write_image(tmp_path / f"images/{id}.jpg", seed)
        write_mask(tmp_path / f"annotations/{id}.png", np.full((24, 32), (181, 255)[seed]))
    write_list(tmp_path / "imageLists/train.txt", IDS[:1])
    write_list(tmp_path / "imageLists/test.txt", IDS[1:])
    return tmp_path


def test_10k_reads_the_lists_and_its_val_is_the_authors_test(ten_k):
    data = CocoStuff10k(str(ten_k))
    assert [data.split(name).ids for name in ("train", "val", "test")] == [
        IDS[:1],
        IDS[1:],
        IDS[1:],
    ]
    image, mask = data.split("train").read(0)
    assert image.shape == (24, 32, 3)
    assert np.unique(mask) == [181]
    assert np.unique(data.split("val").read(0)[1]) == [255]


def test_an_image_that_a_list_of_10k_names_twice_is_refused(ten_k, write_list):
    write_list(ten_k / "imageLists/train.txt", [IDS[0], IDS[1], IDS[0]])
    with pytest.raises(DataError, match=rf"1 name is there twice or more \({IDS[0]}\)"):
        CocoStuff10k(str(ten_k)).split("train")


def test_a_byte_order_mark_in_a_list_of_10k_is_no_part_of_a_name(ten_k):
    path = ten_k / "imageLists/train.txt"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert CocoStuff10k(str(ten_k)).split("train").ids == IDS[:1]


def test_164k_reads_the_folders_of_coco_2017(tmp_path, write_image, write_mask):
    for split, ids in (("train2017", ["000000000025", "000000000009"]), ("val2017", ["1"])):
        for id in ids:
            write_image(tmp_path / f"images/{split}/{id}.jpg")
            write_mask(tmp_path / f"annotations/{split}/{id}.png", np.full((24, 32), 7))
    (tmp_path / "images/val2017/._1.jpg").touch()  # what macOS leaves beside files
    data = CocoStuff164k(str(tmp_path))
    assert data.split("train").ids == ["000000000009", "000000000025"]
    assert data.split("val").ids == ["1"]
    assert (data.split("val").read(0)[1] == 7).all()


def test_what_is_missing_is_said_with_the_command_that_gets_it(tmp_path, ten_k, write_mask):
    with pytest.raises(DataError, match=r"mine\.txt does not exist.*prepare coco_stuff_10k"):
        CocoStuff10k(str(ten_k)).split("mine")
    with pytest.raises(DataError, match=r"train2017: no images there.*prepare coco_stuff_164k"):
        CocoStuff164k(str(tmp_path / "x")).split("train")
    with pytest.raises(DataError, match=r"--data\.root is missing"):
        CocoStuff164k()
    write_mask(ten_k / f"annotations/{IDS[0]}.png", np.full((24, 32), 182))
    with pytest.raises(DataError, match="mask value 182"):
        CocoStuff10k(str(ten_k)).split("train").read(0)
    (ten_k / f"annotations/{IDS[0]}.png").unlink()
    with pytest.raises(DataError, match="1 of 2 files are missing"):
        CocoStuff10k(str(ten_k)).split("train")


def test_an_image_listed_twice_is_refused_by_name(ten_k, write_list):
    write_list(ten_k / "imageLists/train.txt", [IDS[0], IDS[0]])
    with pytest.raises(DataError, match=rf"train\.txt: .*twice or more \({IDS[0]}\)"):
        CocoStuff10k(str(ten_k)).split("train")
