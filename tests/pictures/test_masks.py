import cv2
import numpy as np
import pytest
from PIL import Image

from deeplab_lit.data import Shapes
from deeplab_lit.pictures.masks import (
    comparison,
    overlay,
    palette,
    palette_image,
    with_legend,
)

CLASSES = {"sky": (10, 20, 200), "tree": (0, 150, 30), "a rather long name of a class": (250, 0, 9)}
COLORS = list(CLASSES.values())
MASK = np.array([[0, 1, 2], [2, 255, 254]], np.uint8)


def colors_in(picture):
    return {color for _, color in picture.getcolors(1 << 24)}


def test_a_palette_file_holds_the_classes_indices(tmp_path):
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    palette_image(mask, COLORS).save(tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as found:
        assert found.mode == "P"
        np.testing.assert_array_equal(np.asarray(found), mask)


def test_a_palette_file_looks_like_its_classes(tmp_path):
    palette_image(MASK, COLORS).save(tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as found:
        shown = np.asarray(found.convert("RGB")).tolist()
    void, none = [224, 224, 192], [0, 0, 0]
    assert shown == [[list(c) for c in COLORS], [list(COLORS[2]), void, none]]


def test_void_has_the_color_of_voc_whatever_the_number_of_classes():
    many = [(1, 2, 3)] * 200
    assert palette(many)[255].tolist() == [224, 224, 192]
    assert palette(many)[199].tolist() == [1, 2, 3]
    assert palette(many)[200].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("opacity", "expected"),
    [
        (0.5, [[[55, 60, 150], [50, 125, 65]]]),
        (0.25, [[[78, 80, 125], [75, 112, 82]]]),  # 77.5 and 112.5 to the even neighbor
        (0.0, [[[100, 100, 100], [100, 100, 100]]]),
        (1.0, [[[10, 20, 200], [0, 150, 30]]]),
    ],
)
def test_an_overlay_worked_out_by_hand(opacity, expected):
    image = np.full((1, 2, 3), 100, np.uint8)
    found = overlay(image, MASK[:1, :2], COLORS, opacity)
    assert found.dtype == np.uint8
    assert found.tolist() == expected


def test_an_overlay_leaves_its_image_alone():
    image = np.full((2, 3, 3), 7, np.uint8)
    overlay(image, MASK, COLORS)
    assert (image == 7).all()


@pytest.mark.parametrize(
    ("samples", "across", "down"), [(1, 1, 1), (2, 2, 1), (3, 2, 2), (8, 2, 4)]
)
def test_a_comparison_has_three_pictures_a_sample(samples, across, down):
    image = np.full((40, 60, 3), 128, np.uint8)
    mask = np.zeros((40, 60), np.uint8)
    found = comparison([(image, mask, mask)] * samples, CLASSES, width=120)
    assert found.width == across * 3 * 120
    strips = down * (80 + 2)  # 120 · 40/60 pixels high, and a gap
    assert strips + 40 < found.height <= strips + 100  # with title and legend


def test_a_comparison_shows_image_truth_and_prediction_in_this_order():
    image = np.full((30, 30, 3), (90, 60, 30), np.uint8)
    truth, prediction = np.full((30, 30), 0, np.uint8), np.full((30, 30), 1, np.uint8)
    sheet = np.asarray(comparison([(image, truth, prediction)], CLASSES, width=30))
    row = sheet[22 + 15]  # below the title
    assert row[15].tolist() == [90, 60, 30]
    assert row[45].tolist() == list(COLORS[0])
    assert row[75].tolist() == list(COLORS[1])


def test_masks_are_not_blended_and_the_legend_names_every_class():
    rng = np.random.default_rng(0)
    mask = rng.choice(np.array([0, 1, 255], np.uint8), (50, 70))
    image = np.full((50, 70, 3), 255, np.uint8)
    found = colors_in(comparison([(image, mask, mask)], CLASSES, width=111).convert("RGB"))
    assert set(COLORS) <= found  # class 2 is in the legend only
    assert (224, 224, 192) in found
    assert all(len(set(c)) == 1 for c in found - {*COLORS, (224, 224, 192)})  # black to white


def test_the_legend_names_void_where_there_is_some():
    image, mask = np.zeros((40, 30, 3), np.uint8), np.zeros((40, 30), np.uint8)
    without = comparison([(image, mask)], CLASSES, ("image", "truth"))
    mask[0, 0] = 255
    sheet = np.asarray(comparison([(image, mask)], CLASSES, ("image", "truth")))
    legend = sheet[-60:]
    assert (legend == (224, 224, 192)).all(-1).any()
    assert not (np.asarray(without) == (224, 224, 192)).all(-1).any()


def test_images_of_all_sizes_are_shown():
    samples = [
        (np.zeros((h, w, 3), np.uint8), np.zeros((h, w), np.uint8), np.zeros((h, w), np.uint8))
        for h, w in ((1, 500), (500, 3), (33, 47))
    ]
    assert comparison(samples, {f"class {i}": (i, i, i) for i in range(150)}).width == 2 * 3 * 240


def test_captions_stand_above_their_samples():
    image, mask = np.zeros((20, 30, 3), np.uint8), np.zeros((20, 30), np.uint8)
    plain = comparison([(image, mask)] * 2, CLASSES, ("image", "truth"), width=60)
    named = comparison([(image, mask)] * 2, CLASSES, ("image", "truth"), 60, captions=("a", "b"))
    assert named.width == plain.width
    assert named.height > plain.height + 15


def test_a_mask_in_other_values_keeps_its_colors():
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    mask = np.array([[0, 1, 2, 255]], np.uint8)
    image = palette_image(mask, colors, [7, 1, 0])
    assert np.asarray(image).tolist() == [[7, 1, 0, 255]]
    plain = palette_image(mask, colors)
    np.testing.assert_array_equal(image.convert("RGB"), plain.convert("RGB"))


def test_a_legend_is_below_the_picture_and_names_what_its_mask_shows():
    picture = np.full((50, 300, 3), 77, np.uint8)
    mask = np.zeros((50, 300), np.uint8)
    mask[0, 0] = 2
    found = with_legend(picture, mask, CLASSES)
    np.testing.assert_array_equal(found[:50], picture)
    assert found.shape[0] > 62
    assert found.shape[1] == 300
    below = colors_in(Image.fromarray(found[50:]))
    assert {COLORS[0], COLORS[2]} <= below
    assert COLORS[1] not in below
    assert (224, 224, 192) not in below
    mask[1, 1] = 255
    assert (224, 224, 192) in colors_in(Image.fromarray(with_legend(picture, mask, CLASSES)[50:]))


def test_a_legend_of_a_small_picture_can_be_read_and_of_a_large_one_too():
    small = with_legend(np.zeros((5, 7, 3), np.uint8), np.full((5, 7), 2, np.uint8), CLASSES)
    assert small.shape[1] == 160
    assert (small[:5, 7:] == 255).all()
    large = np.zeros((1000, 3000, 3), np.uint8), np.zeros((1000, 3000), np.uint8)
    assert with_legend(*large, CLASSES).shape[0] > 1060  # letters of 60 pixels


@pytest.mark.parametrize("number", [1, 182, 255])
def test_a_legend_has_as_many_lines_as_it_takes(number):
    classes = {f"{'a long name ' * 20}{i}\n": (255 - i, 0, i) for i in range(number)}
    mask = np.resize(np.arange(number, dtype=np.uint8), (20, 400))
    found = with_legend(np.zeros((20, 400, 3), np.uint8), mask, classes)
    assert set(classes.values()) <= colors_in(Image.fromarray(found[20:]))
    assert found.shape[1] == 400


def test_no_two_classes_of_shapes_nor_void_look_alike():
    """The least distance in the uniform color space CIELAB; some 2 can just be told apart."""
    colors = list(Shapes.classes.values())
    shown = np.array([*colors, palette(colors)[255]], np.uint8)
    lab = cv2.cvtColor(shown[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    apart = np.linalg.norm(lab[:, None] - lab[None], axis=2) + 1000 * np.eye(len(lab))
    assert apart.min() > 35
