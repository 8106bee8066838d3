from shutil import rmtree

import numpy as np
import pytest
from PIL import Image

from deeplab_lit.data import VOC, DataError, Folder, Images
from deeplab_lit.data.classes import voc_color


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


def test_colors_are_those_of_the_masks_palette(folder_root, write_mask):
    palette = [(10 * i, 200 - 10 * i, i) for i in range(3)]
    for path in folder_root.glob("labels/*/*.png"):
        write_mask(path, None, palette)
    assert list(Folder(str(folder_root)).classes.values()) == palette
    assert Folder(str(folder_root), void=0).classes == {"road": palette[1], "car": palette[2]}


def test_colors_without_a_palette_are_vocs(folder_root):
    data = Folder(str(folder_root), void=1)
    assert data.classes == {"sky": voc_color(0), "car": voc_color(2)}


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


def test_images_in_folders_have_their_masks_in_folders_of_the_same_name(
    folder_root, write_image, write_mask
):
    pixels = write_image(folder_root / "images/train/seq1/deep/x.jfif.png", 7)
    values = write_mask(folder_root / "labels/train/seq1/deep/x.jfif.png", seed=7)
    split = Folder(str(folder_root)).split("train")
    assert split.ids == ["0", "1", "2", "3", "4", "seq1/deep/x.jfif"]
    image, mask = split.read(5)
    np.testing.assert_array_equal(image, pixels)
    np.testing.assert_array_equal(mask, values)


def test_linked_folders_are_followed_and_circles_end(folder_root, tmp_path):
    (folder_root / "images/train").rename(tmp_path / "elsewhere")
    (folder_root / "images/train").mkdir()
    (folder_root / "images/train/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(folder_root / "images/train")
    (folder_root / "labels/train").rename(folder_root / "labels/link")
    (folder_root / "labels/train").mkdir()
    (folder_root / "labels/link").rename(folder_root / "labels/train/link")
    assert Folder(str(folder_root)).split("train").ids == [f"link/{i}" for i in range(5)]


def test_hidden_files_and_folders_are_no_data(folder_root, write_image, write_mask):
    for hidden in ("._0", ".ipynb_checkpoints/0-checkpoint", "__MACOSX/0"):
        write_image(folder_root / f"images/train/{hidden}.png")
        (folder_root / f"images/train/{hidden}.png").write_bytes(b"no image")
    (folder_root / "images/.trash").mkdir()
    (folder_root / "labels/train/._0.png").write_bytes(b"no image")
    data = Folder(str(folder_root))
    assert data.split("train").ids == ["0", "1", "2", "3", "4"]
    assert data.split("train").remarks([]) == []
    with pytest.raises(DataError, match=r"folders beside it: train, val$"):
        data.split("test")


def test_what_is_passed_over_is_counted_and_named(folder_root, write_mask):
    for name in ("a.heic", "b.xcf"):
        (folder_root / f"images/train/{name}").write_bytes(b"")
    write_mask(folder_root / "labels/train/9.png")
    said = "\n".join(Folder(str(folder_root)).split("train").remarks(range(5)))
    assert "images/train: 2 files are passed over (not the suffix of an image): a.heic, b" in said
    assert "labels/train: 1 file is passed over (no image of that name): 9.png" in said


@pytest.mark.parametrize("suffix", ["PNG", "tif", "TIFF", "bmp", "gif"])
def test_masks_of_any_lossless_suffix_are_read(folder_root, suffix):
    mask = folder_root / "labels/val/0.png"
    with Image.open(mask) as image:
        values = np.asarray(image)
        image.save(folder_root / f"labels/val/0.{suffix}")
    if suffix != "PNG":
        mask.unlink()
    else:
        mask.rename(folder_root / "labels/val/0.PNG")
    np.testing.assert_array_equal(Folder(str(folder_root)).split("val").read(0)[1], values)


def test_two_masks_of_one_image_are_refused(folder_root, write_mask):
    write_mask(folder_root / "labels/val/0.tif")
    with pytest.raises(DataError, match=r"0\.png and 0\.tif are masks of one image"):
        Folder(str(folder_root)).split("val")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("0_mask.png", r"rename it to 0\.png, and the others alike"),
        ("mask-0.tif", r"rename it to 0\.tif"),
        ("masks/0.png", r"rename it to 0\.png"),
        ("0.jpg", r"0\.jpg, but a lossy format changes values"),
    ],
)
def test_what_lies_there_instead_of_a_mask_is_named(folder_root, name, words):
    target = folder_root / "labels/val" / name
    target.parent.mkdir(exist_ok=True)
    (folder_root / "labels/val/0.png").rename(target)
    with pytest.raises(DataError, match=rf"missing: .*/0\.png\. There is .*{words}"):
        Folder(str(folder_root)).split("val")


@pytest.mark.parametrize("suffix", ["PNG", "tif"])
def test_mask_dir_takes_any_lossless_suffix_too(folder_root, tmp_path, write_mask, suffix):
    for i in range(5):
        write_mask(tmp_path / f"pseudo/{i}.{suffix}", np.full((24, 32), 2))
    data = Folder(str(folder_root), mask_dir=str(tmp_path / "pseudo"))
    assert (data.training().read(4)[1] == 2).all()


COLORS = {"sky": (70, 130, 180), "road": (128, 64, 128), "car": (0, 0, 142)}
TABLE = "".join(f"{name}  {r} {g} {b}\n" for name, (r, g, b) in COLORS.items())


def colored(path, values, mode):
    """Class indices as their colors; 255 is black."""
    table = np.zeros((256, 3), np.uint8)
    table[:3] = list(COLORS.values())
    image = Image.fromarray(table[values])
    if mode == "P":
        image = Image.fromarray(values)
        image.putpalette(table.tobytes())
    image.convert(mode).save(path)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_masks_in_the_colors_of_classes_txt_become_class_indices(folder_root, mode, suffix):
    if (mode, suffix) == ("P", "webp"):
        mode = "RGB"
    (folder_root / "classes.txt").write_text("void 0 0 0\n" + TABLE)
    (folder_root / "labels/val/0.png").unlink()
    values = np.resize(np.array([0, 1, 2, 255, 1], np.uint8), (24, 32))
    path = folder_root / f"labels/val/0.{suffix}"
    if suffix == "webp":
        table = np.zeros((256, 3), np.uint8)
        table[:3] = list(COLORS.values())
        Image.fromarray(table[values]).save(path, lossless=True)
    else:
        colored(path, values, mode)
    data = Folder(str(folder_root))
    assert data.classes == COLORS
    np.testing.assert_array_equal(data.split("val").read(0)[1], values)


def test_a_color_that_no_line_has_is_refused_with_its_pixels_and_file(folder_root):
    (folder_root / "classes.txt").write_text(TABLE)
    path = folder_root / "labels/val/0.png"
    pixels = np.full((24, 32, 3), COLORS["sky"], np.uint8)
    pixels[:2, :5] = 1, 2, 3
    Image.fromarray(pixels).save(path)
    with pytest.raises(DataError, match=r"val/0\.png: the color \(1 2 3\) in 10 pixels"):
        Folder(str(folder_root)).split("val").read(0)


def test_transparent_colors_are_refused(folder_root):
    (folder_root / "classes.txt").write_text(TABLE)
    Image.new("RGBA", (32, 24), (70, 130, 180, 99)).save(folder_root / "labels/val/0.png")
    with pytest.raises(DataError, match=r"0\.png.*transparent"):
        Folder(str(folder_root)).split("val").read(0)


def test_a_void_value_beside_colors_is_refused(folder_root):
    (folder_root / "classes.txt").write_text(TABLE)
    with pytest.raises(DataError, match=r"--data\.void 3 is a value.*gives colors"):
        Folder(str(folder_root), void=3)


def test_values_with_gaps_become_class_indices(folder_root, write_mask):
    (folder_root / "classes.txt").write_text("road = 200\nignore = 0\nsky = 7\nold = 9\n")
    raw = np.resize([200, 7, 0, 255, 9], (24, 32))
    write_mask(folder_root / "labels/val/0.png", raw, [(i, 1, 2) for i in range(256)])
    data = Folder(str(folder_root), void=9)
    assert list(data.classes) == ["road", "sky"]
    expected = np.resize([0, 1, 255, 255, 255], (24, 32))
    np.testing.assert_array_equal(data.split("val").read(0)[1], expected)
    write_mask(folder_root / "labels/val/0.png", np.full((24, 32), 8))
    with pytest.raises(DataError, match="mask value 8, "):
        data.split("val").read(0)


def test_255_cannot_be_the_value_of_a_class(folder_root):
    (folder_root / "classes.txt").write_text("road = 0\nsky = 255\n")
    with pytest.raises(DataError, match="value 255 is void"):
        Folder(str(folder_root), void=9)


def test_the_root_may_begin_with_a_tilde(folder_root, monkeypatch):
    monkeypatch.setenv("HOME", str(folder_root.parent))
    data = Folder(f"~/{folder_root.name}", mask_dir=f"~/{folder_root.name}/labels/train")
    assert data.training().ids == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_a_size_that_differs_through_exif_is_explained(folder_root, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (32, 24)).save(folder_root / "images/val/0.png", exif=exif)
    with pytest.raises(DataError, match=rf"same size\. EXIF orientation {orientation} turns"):
        Folder(str(folder_root)).split("val").read(0)


@pytest.mark.parametrize(
    ("orientation", "size", "said"),
    [(1, (32, 24), 0), (3, (32, 24), 1), (2, (32, 24), 1), (6, (24, 32), 0), (6, (24, 24), 1)],
)
def test_images_turned_by_exif_are_said_where_their_size_proves_nothing(
    folder_root, orientation, size, said
):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for i in (0, 2):
        Image.new("RGB", size).save(folder_root / f"images/val/{i}.png", exif=exif)
    remarks = Folder(str(folder_root)).split("val").remarks(range(3))
    assert len(remarks) == said
    for remark in remarks:
        assert f"val/0.png and 1 more image: EXIF orientation {orientation} turns" in remark


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


@pytest.fixture
def frames(tmp_path, write_image, write_mask):
    """Frames of two films, of one name each, and their pseudo-labels as `predict` writes them."""
    for value, film in enumerate(("x", "y")):
        write_image(tmp_path / f"frames/{film}/0001.jpg")
        write_mask(tmp_path / f"pseudo/{film}/0001.png", np.full((24, 32), value))
    images = Images(str(tmp_path / "frames"), mask_dir=str(tmp_path / "pseudo"))
    return images.of_classes(VOC.classes)


def test_images_of_one_name_in_two_folders_take_each_their_pseudo_labels(frames):
    assert [frames.training().read(i)[1].max() for i in range(2)] == [0, 1]


def test_no_image_takes_the_pseudo_labels_of_another_folder(frames, tmp_path):
    (tmp_path / "pseudo/y/0001.png").unlink()
    with pytest.raises(DataError, match=r"1 of 4 files are missing: .*pseudo/y/0001\.png"):
        frames.training()


def test_a_missing_mask_is_named_as_the_others_are(frames, tmp_path):
    (tmp_path / "pseudo/y/0001.png").unlink()
    (tmp_path / "pseudo/x/0001.png").rename(tmp_path / "pseudo/x/0001.npy")
    with pytest.raises(DataError, match=r"1 of 4 files are missing: .*pseudo/y/0001\.npy"):
        frames.training()


def test_pseudo_labels_of_one_folder_may_lie_at_the_top(frames, tmp_path):
    """As of predict --images frames/x, where --unlabeled_data.root is frames."""
    rmtree(tmp_path / "frames/y")
    (tmp_path / "pseudo/x/0001.png").rename(tmp_path / "pseudo/0001.png")
    rmtree(tmp_path / "pseudo/y")
    assert frames.training().pairs[0].mask == tmp_path / "pseudo/0001.png"
