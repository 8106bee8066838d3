import re

import numpy as np
import pytest
from PIL import Image

from deeplab_lit.data import ADE20K, VOC, Cityscapes, CocoStuff164k, DataError, Folder, Shapes
from deeplab_lit.data import check as data_check
from deeplab_lit.data.classes import voc_color
from deeplab_lit.data.coco_stuff import NAMES
from deeplab_lit.data.meaning import judge_palettes
from deeplab_lit.data.selection import Selection
from deeplab_lit.loading import DataModule

BLACK, RED, GREEN, BLUE = (0, 0, 0), (128, 0, 0), (0, 128, 0), (0, 0, 128)
SIZE = (6, 8)


def checked(data):
    """The data set, as a run checks it before its first step."""
    return DataModule(data, num_workers=1)


@pytest.fixture
def folder(tmp_path, write_image, write_mask):
    """Makes a folder of the classes and masks: folder(classes, train=[values], val=[values])."""

    def make(classes, train, val=None, **options):
        root = tmp_path / "mine"
        for split, masks in (("train", train), ("val", train if val is None else val)):
            for i, values in enumerate(masks):
                write_image(root / f"images/{split}/{i}.png", size=SIZE)
                write_mask(root / f"labels/{split}/{i}.png", np.resize(values, SIZE))
        (root / "classes.txt").write_text("\n".join(classes))
        return checked(Folder(str(root), **options))

    return make


def repaint(data, palettes, write_mask):
    """Give the training masks palettes, in turns."""
    for i, pair in enumerate(data.train.split("train").pairs):
        values = data.train.split("train").read(i)[1]
        write_mask(pair.mask, values, palettes[i % len(palettes)])


def test_a_sound_set_is_not_spoken_of(folder):
    """Classes that are rare, masks of one class, void: all of it is usual."""
    masks = [[0], [1, 255], [0, 2], [255], *[[0]] * 30]
    assert folder("abc", masks).preflight("fit") == []


def test_foreground_written_as_255_is_refused_with_the_value_to_write(folder):
    data = folder(["background", "crack"], [[0, 0, 0, 255]] * 6)
    with pytest.raises(DataError) as caught:
        data.preflight("fit")
    message = str(caught.value)
    assert "Folder train: its 6 masks hold no class but background" in message
    assert "crack occurs in none" in message
    assert "255, which always is void, is in 6 of 6 masks (25.00% of the pixels)" in message
    assert "if it stands for crack, write 1 in its place" in message
    (said,) = data.preflight("validate")
    assert "no mask of Folder val holds class crack" in said
    assert "write 1 in its place" in said


def test_a_list_of_few_images_is_no_sign_of_other_values(folder, tmp_path):
    data = folder("abc", [[0, 1, 255], [0, 1], [2]])
    (tmp_path / "ids.txt").write_text("\n".join(data.train.split("train").ids[:2]))
    data.train.selection = Selection(str(tmp_path / "ids.txt"), None)
    said = data.preflight("fit")[0]
    assert "holds class c." in said
    assert "in its place" not in said


def test_one_of_several_classes_written_as_255_is_said(folder):
    said = folder("abc", [[0, 1, 255], [0, 1]]).preflight("fit")
    assert len(said) == 2
    assert "no mask of Folder train holds class c." in said[0]
    assert "255, which always is void, is in 1 of 2 masks" in said[0]
    assert "if it stands for c, write 2 in its place" in said[0]


def test_the_value_to_write_is_that_of_the_file_where_void_has_a_line(folder):
    with pytest.raises(DataError, match="if it stands for b, write 2 in its place"):
        folder(["void", "a", "b"], [[1, 255]], void=0).preflight("fit")


def test_masks_of_one_class_are_refused_without_255_too(folder):
    with pytest.raises(DataError, match=r"no class but a, .* b, c occur in none\. Values .* 0\."):
        folder("abc", [[0]] * 3).preflight("fit")


@pytest.mark.parametrize("void", [255, 0])
def test_nothing_but_void_is_refused(folder, void):
    data = folder("abc", [[void]], [[1, 2]], void=void)
    with pytest.raises(DataError, match=r"train: all pixels .* void, there is nothing to learn"):
        data.preflight("fit")
    assert all("void" not in said for said in data.preflight("validate"))
    data = folder("abc", [[1, 2]], [[void]], void=void)
    for stage in ("fit", "validate"):
        with pytest.raises(DataError, match=r"val: all pixels .* void, there is nothing to score"):
            data.preflight(stage)


def test_absent_classes_are_said_by_name_for_each_split(folder):
    data = folder(["sky", "road", "car", "pole"], [[0, 1, 2]], [[1, 2, 3]])
    train, val = data.preflight("fit")
    assert "no mask of Folder train holds class pole. Values that occur: 0, 1, 2." in train
    assert "no mask of Folder val holds class sky" in val
    assert data.preflight("validate") == [val]


def test_many_absent_classes_are_counted_and_twenty_of_them_named(folder):
    names = [f"c{i}" for i in range(60)]
    said = folder(names, [[0, 1]]).preflight("validate")
    assert "holds 58 of the 60 classes: c2, c3, " in said[0]
    assert "c21 and 38 more" in said[0]


def test_values_that_are_multiples_are_pointed_out(folder):
    said = folder([f"c{i}" for i in range(21)], [[0, 10, 20]]).preflight("fit")
    assert "Values that occur: 0, 10, 20. They are multiples of 10" in said[0]
    assert "multiples" not in folder("abc", [[0, 2]]).preflight("fit")[0]


def test_a_value_that_is_no_class_comes_with_all_that_occur(folder):
    with pytest.raises(DataError, match=r"0\.png: mask value 128, which .* holds 0, 128, 255\."):
        folder("abc", [[0, 128, 255]]).preflight("fit")


def test_what_a_part_of_the_masks_suggests_is_said_of_that_part(folder, monkeypatch):
    monkeypatch.setattr(data_check, "MASKS", 20)
    data = folder("abc", [[0, 1]] * 40, [[0, 1, 2]])
    (said,) = data.preflight("fit")
    assert "none of the 20 masks looked at of Folder train's 40 holds class c" in said


def test_large_masks_are_sampled_by_their_pixels(folder, monkeypatch):
    monkeypatch.setattr(data_check, "PIXELS", 25 * SIZE[0] * SIZE[1])
    (said,) = folder("abc", [[0, 1]] * 40, [[0, 1, 2]]).preflight("fit")
    assert "none of the 25 masks looked at" in said


def test_a_class_that_the_sample_missed_is_looked_for_before_a_set_is_refused(folder, monkeypatch):
    monkeypatch.setattr(data_check, "MASKS", 20)
    masks = [[0]] * 41
    masks[1] = [0, 1]  # not among every second one
    assert folder("ab", masks).preflight("fit") == []


def test_quick_reads_every_mask_of_a_small_set(folder):
    masks = [[0, 1]] * 100
    masks[51] = [7]
    with pytest.raises(DataError, match=r"train/6\.png: mask value 7"):
        folder("ab", [*masks[:6], masks[51], *masks[7:]], [[0, 1]]).preflight("fit")


def test_one_value_with_two_meanings_is_refused_with_both_files(folder, write_mask):
    data = folder("abc", [[0, 1, 2]] * 4)
    repaint(data, [[BLACK, RED, GREEN], [BLACK, GREEN, RED]], write_mask)
    with pytest.raises(DataError) as caught:
        data.preflight("fit")
    message = str(caught.value)
    assert re.search(r"\(128, 0, 0\) is value 1 in \S+/0\.png, but value 2 in \S+/1\.png", message)
    assert re.search(r"value 1 is \(0, 128, 0\) in \S+/1\.png", message)


def test_the_other_split_counts_too(folder, write_mask):
    data = folder("abc", [[0, 1, 2]])
    repaint(data, [[BLACK, RED, GREEN]], write_mask)
    path = data.train.root / "labels/val/0.png"
    write_mask(path, np.resize([0, 1, 2], SIZE), [BLACK, GREEN, RED])
    with pytest.raises(DataError, match="two meanings"):
        data.preflight("fit")


@pytest.mark.parametrize(
    "palettes",
    [
        [[BLACK, RED, GREEN], None],
        [[BLACK, RED, GREEN], [(i, i, i) for i in range(256)]],
        [[BLACK, RED, GREEN], [BLACK] * 256],
        [[BLACK, RED, GREEN], [BLACK, RED, GREEN, BLUE]],
    ],
    ids=["none", "gray ramp", "black", "longer"],
)
def test_palettes_that_do_not_disagree_are_fine(folder, write_mask, palettes):
    data = folder("abc", [[0, 1, 2]] * 4)
    repaint(data, palettes, write_mask)
    assert data.preflight("fit") == []


def test_palettes_that_disagree_about_values_that_do_not_occur_are_fine(folder, write_mask):
    data = folder("abc", [[0, 1, 2], [0, 1]])
    repaint(data, [[BLACK, RED, GREEN], [BLACK, RED, BLUE, GREEN]], write_mask)
    assert data.preflight("fit") == []


def test_one_value_in_two_colors_may_be_taste_and_is_said(folder, write_mask):
    data = folder("abc", [[0, 1, 2]] * 2)
    repaint(data, [[BLACK, RED, GREEN], [BLACK, BLUE, GREEN]], write_mask)
    (said,) = data.preflight("fit")
    assert re.search(r"value 1 is \(128, 0, 0\) in \S+0\.png, but \(0, 0, 128\) in \S+1\.png", said)
    assert list(judge_palettes({(255, RED): "a", (255, BLUE): "b"}, {})) == []


@pytest.mark.parametrize("name", ["Unlabelled", "void", "ignore_region", "VOID (border)", "ignore"])
def test_a_class_called_void_is_said_with_the_option(folder, name):
    data = folder(["road", name, "avoid", "car"], [[0, 1, 2, 3]])
    (said,) = data.preflight("fit")
    assert said.startswith(f"{name} is trained and scored")
    assert said.endswith("if it is void, --data.void 1")
    assert folder(["road", name, "car"], [[0, 1, 2]], void=1).preflight("fit") == []
    (said,) = folder(["road", name, "none"], [[0, 1, 9]], void=9).preflight("validate")[:1]
    assert said.endswith("write 255 instead of 1")


def test_a_single_class_is_refused(folder):
    data = folder(["only"], [[0]])
    for stage in ("fit", "validate"):
        with pytest.raises(DataError, match="there is but one class, only"):
            data.preflight(stage)


def test_pseudo_labels_are_judged_as_the_labels_are(folder, write_mask, tmp_path):
    data = folder(["a", "void", "b"], [[0, 1, 2]] * 2, void=1, mask_dir=str(tmp_path / "pseudo"))
    for i, values in enumerate(([0, 1], [0, 255])):  # class indices
        write_mask(tmp_path / f"pseudo/{i}.png", np.resize(values, SIZE))
    (said,) = data.preflight("fit")
    assert "read as class indices" in said
    assert "b is 1 here and 2 there" in said
    assert data.train.pseudo_labels(1).pixels.tolist() == [48, 24]
    for i in range(2):
        write_mask(tmp_path / f"pseudo/{i}.png", np.resize([0, 255], SIZE))
    for read in (lambda: data.preflight("fit"), lambda: data.train.pseudo_labels(1)):
        with pytest.raises(DataError, match="if it stands for b, write 1 in its place"):
            read()
    for i, palette in enumerate(([BLACK, RED], [RED, BLACK])):
        write_mask(tmp_path / f"pseudo/{i}.png", np.resize([0, 1], SIZE), palette)
    with pytest.raises(DataError, match="two meanings"):
        data.preflight("fit")


def test_voc_masks_in_another_order_than_vocs_are_refused(voc_root, write_mask):
    """The real ones have VOC's palette, those of some copies none; both are fine."""
    data = checked(VOC(str(voc_root)))
    assert all("class" in said for said in data.preflight("fit"))
    pairs = data.train.split("train").pairs + data.train.split("val").pairs
    for pair in pairs:
        write_mask(pair.mask, np.resize(range(21), (24, 32)))
    assert data.preflight("fit") == []
    colors = [voc_color(i) for i in range(256)]
    colors[1:21] = sorted(colors[1:21])
    for pair in pairs:
        write_mask(pair.mask, np.resize(range(21), (24, 32)), colors)
    with pytest.raises(DataError, match=r"color .* in the data set's palette, but value \d+ in /"):
        data.preflight("validate")
    for pair in pairs:
        write_mask(pair.mask, np.resize(range(21), (24, 32)), [(i, 9, 9) for i in range(256)])
    (said,) = data.preflight("validate")
    assert "value 0 is (0, 0, 0) in the data set's palette, but (0, 9, 9) in " in said


def test_train_ids_under_the_name_of_label_ids_are_refused(city_root, write_mask):
    data = checked(Cityscapes(str(city_root)))
    assert data.preflight("fit") == []
    for values, refused in (
        ([*range(19), 255], True),
        ([0, 2, 5, 13, 255], True),
        ([0, 1, 3, 7, 8, 11], False),  # label ids of a set without sky, trees, cars or people
        ([0, 3, 7, 23, 26, 255], False),
    ):
        for mask in city_root.glob("gtFine/*/*/*_labelIds.png"):
            write_mask(mask, np.resize(values, (24, 32)))
        if refused:
            with pytest.raises(DataError, match="train ids, where label ids are expected"):
                data.preflight("validate")
        else:
            assert data.preflight("validate")  # classes that do not occur


def test_label_ids_where_class_indices_are_expected_are_refused(city_root, write_mask, tmp_path):
    for pair in Cityscapes(str(city_root)).split("train").pairs:
        write_mask(tmp_path / f"pseudo/{pair.id}.png", np.resize([7, 23, 26], (24, 32)))
    data = checked(Cityscapes(str(city_root), mask_dir=str(tmp_path / "pseudo")))
    with pytest.raises(DataError, match="mask value 23, 26, which is neither one of the 19"):
        data.preflight("fit")


@pytest.mark.parametrize("with_palette", [True, False])
def test_class_indices_that_their_own_palette_proves_are_not_warned_of(
    city_root, tmp_path, with_palette
):
    colors = [channel for color in Cityscapes.classes.values() for channel in color]
    for pair in Cityscapes(str(city_root)).split("train").pairs:
        mask = Image.fromarray(np.resize(np.uint8([*range(19), 255]), (24, 32)))
        if with_palette:  # as `predict` writes them
            mask.putpalette(colors)
        path = tmp_path / f"pseudo/{pair.id}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        mask.save(path)
    data = checked(Cityscapes(str(city_root), mask_dir=str(tmp_path / "pseudo")))
    warned = any("road is 0 here and 7 there" in finding for finding in data.preflight("fit"))
    assert warned != with_palette


def test_ade20k_that_counts_from_0_is_suspected(tmp_path, write_image, write_mask):
    write_image(tmp_path / "images/validation/a.jpg", size=(20, 20))
    mask = tmp_path / "annotations/validation/a.png"
    data = checked(ADE20K(str(tmp_path)))
    for values, suspected in ((range(151), False), ([*range(151), 255], False)):
        write_mask(mask, np.resize(values, (20, 20)))
        assert data.preflight("validate") == [], suspected
    write_mask(mask, np.resize([*range(150), 255], (20, 20)))
    assert "off by one" in data.preflight("validate")[0]


def test_coco_stuff_that_counts_from_1_is_suspected(tmp_path, write_image, write_mask):
    write_image(tmp_path / "images/val2017/a.jpg", size=(20, 20))
    mask = tmp_path / "annotations/val2017/a.png"
    data = checked(CocoStuff164k(str(tmp_path)))
    there = [i for i, name in enumerate(NAMES) if name not in CocoStuff164k.never]
    assert len(there) == 171
    write_mask(mask, np.resize(there, (20, 20)))
    assert data.preflight("validate") == []
    write_mask(mask, np.resize([i + 1 for i in there if i < 181], (20, 20)))
    assert "off by one" in data.preflight("validate")[0]


def test_a_few_of_many_images_say_nothing_about_rare_classes(monkeypatch):
    """Of a set that has no mask files the quick check draws sixteen images."""
    read = Shapes(100, 100).split("train").read
    monkeypatch.setattr(
        "deeplab_lit.data.shapes.ShapesSplit.read",
        lambda split, index: (read(index)[0], read(index)[1] % 2),
    )
    assert checked(Shapes(100, 100)).preflight("fit") == []
    said = checked(Shapes(10, 10)).preflight("fit")
    assert "no mask of Shapes train holds 5 of the 7 classes: square, " in said[0]


def test_the_real_sets_are_sound(real):
    assert checked(Folder(real("camvid"), void=11)).preflight("fit") == []
    for data in map(checked, (VOC(real("VOCdevkit")), Cityscapes(real("cityscapes")))):
        assert all(said.startswith("no mask of") for said in data.preflight("validate"))


def test_of_masks_in_colors_no_values_are_spoken_of(tmp_path, write_image):
    colors = np.zeros((*SIZE, 3), np.uint8)
    colors[0], colors[1] = (255, 0, 0), (9, 9, 9)
    for split in ("train", "val"):
        write_image(tmp_path / f"images/{split}/0.png", size=SIZE)
        (tmp_path / f"labels/{split}").mkdir(parents=True)
        Image.fromarray(colors).save(tmp_path / f"labels/{split}/0.png")
    (tmp_path / "classes.txt").write_text("sky 0 0 0\nroad 255 0 0\ncar 0 0 255\nvoid 9 9 9\n")
    data = checked(Folder(str(tmp_path)))
    said = data.preflight("fit")
    assert said[0] == "no mask of Folder train holds class car."
    assert data.train.split("val").label_values(3) == {}


@pytest.mark.parametrize("void", [255, 7])
def test_a_class_with_the_value_255_is_refused_and_not_left_out(folder, void):
    with pytest.raises(DataError, match="crack: value 255 is void and cannot be a class"):
        folder(["background = 0", "thing = 1", "crack = 255"], [[0, 255]], void=void)
    data = folder(["background = 0", "thing = 1", "void = 255"], [[0, 1, 255]])
    assert list(data.classes) == ["background", "thing"]
