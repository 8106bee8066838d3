import numpy as np
import pytest
from PIL import Image

from deeplab_lit.data import DataError, Folder
from deeplab_lit.data.palette import voc_colour


def test_images_classes_and_values(folder_root):
    data = Folder(str(folder_root))
    assert list(data.classes) == ["sky", "road", "car"]
    split = data.split("train")
    assert split.ids == ["0", "1", "2", "3", "4"]
    assert split.num_classes == 3
    image, mask = split.read(3)
    for read, name in ((image, "images"), (mask, "labels")):
        with Image.open(folder_root / f"{name}/train/3.png") as file:
            np.testing.assert_array_equal(read, np.asarray(file))


@pytest.mark.parametrize(
    ("void", "names", "expected"),
    [
        (255, ["a", "b", "c"], [0, 1, 2]),
        (0, ["b", "c"], [255, 0, 1]),
        (1, ["a", "c"], [0, 255, 1]),
        (2, ["a", "b"], [0, 1, 255]),
    ],
)
def test_the_line_of_void_is_left_out_and_later_classes_move_up(
    folder_root, write_mask, void, names, expected
):
    (folder_root / "classes.txt").write_text("a\nb\nc\n")
    write_mask(folder_root / "labels/val/0.png", np.resize([0, 1, 2, 255], (24, 32)))
    data = Folder(str(folder_root), void=void)
    assert list(data.classes) == names
    mask = data.split("val").read(0)[1]
    np.testing.assert_array_equal(mask, np.resize([*expected, 255], (24, 32)))


def test_void_without_a_line_of_its_own(folder_root, write_mask):
    write_mask(folder_root / "labels/val/0.png", np.resize([0, 1, 2, 9], (24, 32)))
    data = Folder(str(folder_root), void=9)
    assert list(data.classes) == ["sky", "road", "car"]
    mask = data.split("val").read(0)[1]
    np.testing.assert_array_equal(mask, np.resize([0, 1, 2, 255], (24, 32)))
    with pytest.raises(DataError, match=r"0\.png: mask value 9, .* 3 classes"):
        Folder(str(folder_root)).split("val").read(0)


@pytest.mark.parametrize("void", [256, 300])
def test_void_that_no_mask_can_hold_is_refused(folder_root, void):
    with pytest.raises(ValueError, match="void"):
        Folder(str(folder_root), void=void)


def test_colours_are_those_of_the_masks_palette(folder_root, write_mask):
    palette = [(10 * i, 200 - 10 * i, i) for i in range(3)]
    for path in folder_root.glob("labels/*/*.png"):
        write_mask(path, None, palette)
    assert list(Folder(str(folder_root)).classes.values()) == palette
    assert Folder(str(folder_root), void=0).classes == {"road": palette[1], "car": palette[2]}


def test_colours_without_a_palette_are_vocs(folder_root):
    data = Folder(str(folder_root), void=1)
    assert data.classes == {"sky": voc_colour(0), "car": voc_colour(2)}


def test_images_of_many_kinds_and_stray_files(folder_root, write_image, write_mask):
    folder = folder_root / "images/odd"
    for name in ("b.JPG", "a.jpeg", "c.bmp", "d.e.png"):
        write_image(folder / name)
        write_mask(folder_root / f"labels/odd/{name.rsplit('.', 1)[0]}.png")
    (folder / "notes.txt").write_text("not an image")
    assert Folder(str(folder_root)).split("odd").ids == ["a", "b", "c", "d.e"]


def test_same_name_twice_is_refused(folder_root, write_image):
    write_image(folder_root / "images/train/2.jpg")
    with pytest.raises(DataError, match=r"2\.jpg and 2\.png would share a mask"):
        Folder(str(folder_root)).split("train")


def test_missing_mask_is_named(folder_root):
    (folder_root / "labels/train/4.png").unlink()
    with pytest.raises(DataError, match=r"1 of 10 files are missing: .*labels/train/4\.png"):
        Folder(str(folder_root)).split("train")


def test_unknown_split_names_those_there_are(folder_root):
    with pytest.raises(DataError, match=r"images/test: no images there.*: train, val"):
        Folder(str(folder_root)).split("test")


@pytest.mark.parametrize(
    "text", ["", " \n\n", "a\nb\na\n", "\n".join(f"class {i}" for i in range(255))]
)
def test_bad_classes_file_is_refused_by_name(folder_root, text):
    (folder_root / "classes.txt").write_text(text)
    with pytest.raises(DataError, match=r"classes\.txt: expected 1 to 254 different names"):
        Folder(str(folder_root))


def test_classes_file_with_blank_lines_and_spaces(folder_root):
    (folder_root / "classes.txt").write_text("\n traffic light \r\nroad\n\n")
    assert list(Folder(str(folder_root)).classes) == ["traffic light", "road"]


def test_254_classes_can_be_told_apart_from_void(folder_root, write_mask):
    (folder_root / "classes.txt").write_text("\n".join(f"class {i}" for i in range(254)))
    values = np.resize([*range(254), 255], (24, 32))
    write_mask(folder_root / "labels/val/0.png", values)
    split = Folder(str(folder_root)).split("val")
    np.testing.assert_array_equal(split.read(0)[1], values)
    values[0, 0] = 254
    write_mask(folder_root / "labels/val/0.png", values)
    with pytest.raises(DataError, match="mask value 254"):
        split.read(0)


def test_missing_root_and_missing_classes_file_are_explained(folder_root):
    with pytest.raises(DataError, match=r"--data\.root is missing"):
        Folder()
    with pytest.raises(DataError, match=r"nowhere/classes\.txt does not exist.*--data\.root"):
        Folder(str(folder_root / "nowhere"))


def test_unreadable_first_mask_does_not_stop_the_class_list(folder_root):
    for path in folder_root.glob("labels/*/*.png"):
        path.write_text("broken")
    data = Folder(str(folder_root))
    assert list(data.classes) == ["sky", "road", "car"]
    with pytest.raises(DataError, match=r"0\.png: cannot be read as a mask"):
        data.split("val").read(0)


def test_real_camvid(real):
    data = Folder(real("camvid"), void=11)
    assert len(data.classes) == 11
    assert "Unlabelled" not in data.classes
    sizes = [len(data.split(name).ids) for name in ("train", "val", "test")]
    assert sizes == [367, 101, 233]
    image, mask = data.split("test").read(0)
    assert image.shape == (360, 480, 3)
    assert mask.shape == (360, 480)
    assert set(np.unique(mask).tolist()) <= {*range(11), 255}
