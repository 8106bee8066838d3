import cv2
import numpy as np
import pytest
from PIL import Image

from deeplab_lit.data import Cityscapes, DataError, Synthia
from deeplab_lit.data.check import preflight
from deeplab_lit.data.meaning import refuse_proved
from deeplab_lit.data.synthia import read_classes

SIZE = (24, 32)
# SYNTHIA's class → Cityscapes' training id, as DACS, BDL, MaxSquareLoss and ProDA write it
TRAIN_ID = {3: 0, 4: 1, 2: 2, 21: 3, 5: 4, 7: 5, 15: 6, 9: 7, 6: 8, 16: 9, 1: 10, 10: 11, 17: 12}
TRAIN_ID |= {8: 13, 18: 14, 19: 15, 20: 16, 12: 17, 11: 18}
OCCUR = [value for value in range(23) if value not in (13, 16, 18, 20)]
IDS = ["0000000", "0000001", "0009399"]


def write_label(path, classes, instances=976):
    """Write a label as the archive has it: 16 bits, class in red, instance in green."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bgr = np.zeros((*np.shape(classes), 3), np.uint16)
    bgr[..., 2], bgr[..., 1] = classes, instances
    assert cv2.imwrite(str(path), bgr)


@pytest.fixture
def root(tmp_path, write_image):
    """Three frames, in whose labels every class occurs that the official ones have."""
    folder = tmp_path / "RAND_CITYSCAPES"
    for seed, id in enumerate(IDS):
        write_image(folder / f"RGB/{id}.png", seed)
        write_label(folder / f"GT/LABELS/{id}.png", np.resize(OCCUR, SIZE))
    return folder


def judged(data):
    """What is said of all frames of which nothing is refused."""
    found = preflight(data.split("all"), "Synthia all", "full", 1, 19)
    return refuse_proved(data.findings(found, None))


def test_the_class_is_the_red_channel_of_16_bits(tmp_path):
    """Of the pixel (21, 976, 0) Pillow keeps (0, 3, 0)."""
    write_label(tmp_path / "a.png", np.full((2, 3), 21))
    assert np.asarray(Image.open(tmp_path / "a.png"))[0, 0].tolist() == [0, 3, 0]
    assert cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)[0, 0].tolist() == [0, 976, 21]
    classes = read_classes(tmp_path / "a.png")
    assert classes.dtype == np.uint8
    assert classes.tolist() == [[21] * 3] * 2


@pytest.mark.parametrize(("lane_marking", "index"), [("void", 255), ("road", 0)])
def test_classes_become_cityscapes_training_ids(root, lane_marking, index):
    write_label(root / "GT/LABELS/0000001.png", np.resize(range(23), SIZE))
    split = Synthia(str(root), lane_marking).split("all")
    table = TRAIN_ID | {22: index}
    expected = np.vectorize(lambda value: table.get(value, 255))(np.resize(range(23), SIZE))
    np.testing.assert_array_equal(split.read(1)[1], expected)
    assert Synthia.classes == Cityscapes.classes


def test_three_classes_are_in_no_label(root):
    assert judged(Synthia(str(root))) == []
    write_label(root / "GT/LABELS/0000001.png", np.resize([3, 13, 20], SIZE))
    (said,) = judged(Synthia(str(root)))
    assert "13 (parking slot), 20 (train) occurs, which none of SYNTHIA-RAND" in said


def test_all_frames_that_are_there_are_trained_on_and_the_folder_above_will_do(root):
    assert Synthia(str(root)).training().ids == IDS
    assert Synthia(str(root.parent)).training().ids == IDS
    (root / "RGB/0000001.png").unlink()
    assert "passed over (no image of that name): 0000001.png" in judged(Synthia(str(root)))[0]


def test_train_and_val_are_maxsquares_and_want_every_frame(root):
    for split, number, there in (("train", 9000, 2), ("val", 400, 1)):
        with pytest.raises(DataError, match=rf"{2 * number - 2 * there} of {2 * number} files"):
            Synthia(str(root)).split(split)
    with pytest.raises(DataError, match=r"splits are all, train, val, and .*test\.txt"):
        Synthia(str(root)).split("test")


def test_a_list_of_published_code_is_a_split_by_its_name(root):
    (root / "bdl.txt").write_text("RGB/0000001.png\nRGB/0000000.png\n")
    assert Synthia(str(root)).split("bdl").ids == ["0000001", "0000000"]


@pytest.mark.parametrize("name", ["train", "val"])
def test_a_list_by_the_name_of_a_range_is_not_passed_over_in_silence(root, name):
    """BDL's list of all frames is called train.txt."""
    (root / f"{name}.txt").write_text("RGB/0000000.png\n")
    with pytest.raises(DataError, match=rf"{name}\.txt: a list cannot be called {name}"):
        Synthia(str(root), train_split=name).training()


def test_labels_that_lost_their_classes_are_refused(root):
    path = root / "GT/LABELS/0000001.png"
    pillows = np.asarray(Image.open(path))
    assert pillows[..., 1].max() == 3
    Image.fromarray(pillows).save(path)  # 8 bits
    with pytest.raises(DataError, match=r"0000001\.png: this label \(8 bits, RGB\) .*lost its cl"):
        judged(Synthia(str(root)))
    write_label(path, np.zeros(SIZE), 3)
    with pytest.raises(DataError, match=r"0000001\.png: class 0 \(void\) everywhere, so its"):
        judged(Synthia(str(root)))
    rgb = np.zeros((*SIZE, 3), np.uint16)
    rgb[..., 0] = np.resize(OCCUR, SIZE)
    cv2.imwrite(str(path), rgb)
    with pytest.raises(DataError, match="red and blue have been exchanged"):
        judged(Synthia(str(root)))


def test_converted_labels_are_refused(root, write_mask):
    write_mask(root / "GT/LABELS/0000001.png", np.resize(OCCUR, SIZE))
    with pytest.raises(DataError, match=r"\(8 bits, L\) has been converted, as .*mapped_to_citys"):
        judged(Synthia(str(root)))
    gray = np.resize(OCCUR, SIZE).astype(np.uint16)
    cv2.imwrite(str(root / "GT/LABELS/0000001.png"), gray)
    with pytest.raises(DataError, match="no three channels"):
        judged(Synthia(str(root)))


@pytest.mark.parametrize(("value", "words"), [(23, "mask value 23"), (976, "class 976, expected")])
def test_a_value_without_a_class_is_refused(root, value, words):
    write_label(root / "GT/LABELS/0000001.png", np.resize([3, value], SIZE))
    with pytest.raises(DataError, match=rf"0000001\.png: {words}.*GT/LABELS of SYNTHIA_RAND"):
        judged(Synthia(str(root)))


def test_corrupt_labels_are_all_named(root):
    whole = (root / "GT/LABELS/0000000.png").read_bytes()
    (root / "GT/LABELS/0000000.png").write_bytes(whole[: len(whole) // 2])
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    (root / "GT/LABELS/0009399.png").write_bytes(flipped)
    with pytest.raises(DataError, match=r"(?s)2 of 3 .*0000000\.png: cannot.*0009399\.png: cannot"):
        judged(Synthia(str(root)))


def test_names_with_backslashes_are_explained(tmp_path):
    (tmp_path / "RGB\\0000000.png").touch()
    with pytest.raises(DataError, match=r"backslashes .* unrar .*prepare synthia --root"):
        Synthia(str(tmp_path))
    (tmp_path / "RGB\\0000000.png").rename(tmp_path / "RAND_CITYSCAPES\\RGB\\0000000.png")
    with pytest.raises(DataError, match="backslashes"):
        Synthia(str(tmp_path))


def test_a_root_of_something_else_is_explained(tmp_path, root):
    with pytest.raises(DataError, match=r"no SYNTHIA-RAND-CITYSCAPES there .*prepare synthia"):
        Synthia(str(tmp_path / "x"))
    with pytest.raises(DataError, match=r"--data\.root is missing"):
        Synthia()
    with pytest.raises(DataError, match=r"--data\.lane_marking must be void or road"):
        Synthia(str(root), lane_marking="sky")


def test_images_alone_need_no_labels(root):
    (root / "GT").rename(root / "other")
    assert Synthia(str(root)).images().ids == IDS
    with pytest.raises(DataError, match="3 of 6 files are missing"):
        Synthia(str(root)).training()
