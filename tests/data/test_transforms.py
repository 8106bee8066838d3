from itertools import pairwise

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from deeplab_lit.data.transforms import ScaleRange, TrainTransform, resized

AUTHORS = (0.5, 0.75, 1.0, 1.25, 1.5)
ODD = (0.3, 0.61, 0.8, 0.9999, 1.1, 1.37, 2.7)
MEAN = (123, 117, 104)
SIZES = [(375, 500), (96, 81), (40, 161), (33, 33), (7, 90)]
SCALES = pytest.mark.parametrize("scale", AUTHORS + ODD)


def sample(size, seed=0, classes=21):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
    mask = rng.integers(0, classes, size).astype(np.uint8)
    mask[rng.random(size) < 0.1] = 255
    return image, mask


def scaled_up(image, mask, scale):
    """All of the image bilinear, all of the mask by nearest pixel center, truncated sizes."""
    height, width = (max(int(side * scale), 1) for side in mask.shape)
    rows, columns = (
        np.minimum(np.floor((np.arange(number) + 0.5) / scale).astype(int), side - 1)
        for number, side in zip((height, width), mask.shape, strict=True)
    )
    if scale != 1:
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    return image[:height, :width], mask[rows][:, columns]


def slow(image, mask, crop, scales, rng):
    """The documented augmentation on the whole image: scale, pad, crop, mirror."""
    high, wide = (crop, crop) if isinstance(crop, int) else crop
    if isinstance(scales, ScaleRange):
        scale = rng.uniform(scales.min, scales.max)
    else:
        scale = scales[rng.integers(len(scales))]
    image, mask = scaled_up(image, mask, scale)
    height, width = mask.shape
    padded = np.empty((max(height, high), max(width, wide), 3), np.uint8)
    padded[:] = MEAN
    padded[:height, :width] = image
    labels = np.full(padded.shape[:2], 255, np.uint8)
    labels[:height, :width] = mask
    top = rng.integers(labels.shape[0] - high + 1)
    left = rng.integers(labels.shape[1] - wide + 1)
    image = padded[top : top + high, left : left + wide]
    mask = labels[top : top + high, left : left + wide]
    return (image[:, ::-1], mask[:, ::-1]) if rng.random() < 0.5 else (image, mask)


def both(image, mask, crop, scales, seed):
    fast = TrainTransform(crop, scales)(image, mask, np.random.default_rng(seed))
    return fast, slow(image, mask, crop, scales, np.random.default_rng(seed))


@pytest.mark.parametrize("scale", AUTHORS)
@pytest.mark.parametrize("size", SIZES)
def test_crop_is_that_of_the_whole_resized_image_at_the_authors_scales(size, scale):
    image, mask = sample(size)
    for seed in range(12):
        fast, expected = both(image, mask, 65, (scale,), seed)
        np.testing.assert_array_equal(fast[0], expected[0])
        np.testing.assert_array_equal(fast[1], expected[1])


@pytest.mark.parametrize("size", SIZES)
def test_crop_with_the_scale_chosen_at_random(size):
    image, mask = sample(size)
    for seed in range(40):
        fast, expected = both(image, mask, 49, AUTHORS, seed)
        np.testing.assert_array_equal(fast[0], expected[0])
        np.testing.assert_array_equal(fast[1], expected[1])


@pytest.mark.parametrize("crop", [(33, 97), (70, 40), (161, 50)])
def test_a_crop_may_have_two_sides(crop):
    image, mask = sample((96, 81))
    for seed in range(20):
        fast, expected = both(image, mask, crop, AUTHORS, seed)
        assert fast[1].shape == crop
        np.testing.assert_array_equal(fast[0], expected[0])
        np.testing.assert_array_equal(fast[1], expected[1])


@pytest.mark.parametrize("scale", [1.0, 0.5, 1.25])
def test_whole_images_are_scaled_and_mirrored_and_nothing_else(scale):
    image, mask = sample((52, 84))
    expected = scaled_up(image, mask, scale)
    seen = set()
    for whole in crops(TrainTransform("whole", (scale,)), image, mask, 12):
        mirrored = not np.array_equal(whole[1], expected[1])
        turn = np.s_[:, ::-1] if mirrored else np.s_[:]
        np.testing.assert_array_equal(whole[0][turn], expected[0])
        np.testing.assert_array_equal(whole[1][turn], expected[1])
        seen.add(mirrored)
    assert seen == {True, False}


def test_without_mirroring_all_else_is_drawn_alike():
    image, mask = sample((90, 80))
    plain, unmirrored = (
        TrainTransform(49, AUTHORS, 0.2),
        TrainTransform(49, AUTHORS, 0.2, mirror=False),
    )
    turned = 0
    for seed in range(20):
        one, other = (t(image, mask, np.random.default_rng(seed)) for t in (plain, unmirrored))
        flip = not np.array_equal(one[1], other[1])
        np.testing.assert_array_equal(one[1][:, ::-1] if flip else one[1], other[1])
        np.testing.assert_array_equal(one[0][:, ::-1] if flip else one[0], other[0])
        turned += flip
    assert 0 < turned < 20


@pytest.mark.parametrize("resampling", ["bicubic", "bilinear"])
@pytest.mark.parametrize("crop", [65, (40, 81), "whole"])
def test_resizing_comes_first_and_is_pillows(resampling, crop):
    image, mask = sample((143, 171))
    other = sample((145, 170))[1]  # a GTA5 pair: the mask is of another size
    for labels in (mask, other):
        before = [
            np.asarray(Image.fromarray(pixels).resize((121, 90), getattr(Image, name.upper())))
            for pixels, name in ((image, resampling), (labels, "nearest"))
        ]
        fast = TrainTransform(crop, AUTHORS, resize=(90, 121), resize_filter=resampling)
        for seed in range(6):
            found = fast(image, labels, np.random.default_rng(seed))
            expected = TrainTransform(crop, AUTHORS)(*before, np.random.default_rng(seed))
            np.testing.assert_array_equal(found[0], expected[0])
            np.testing.assert_array_equal(found[1], expected[1])


def test_a_resized_mask_has_the_pixels_under_the_new_centers():
    mask = np.arange(35, dtype=np.uint8).reshape(5, 7)
    rows, columns = [0, 2, 4], [0, 2, 4, 6]  # centers (i + ½)·5/3 and (i + ½)·7/4, cut off
    np.testing.assert_array_equal(resized(mask, (3, 4), "nearest"), mask[np.ix_(rows, columns)])


@pytest.mark.parametrize("scales", [AUTHORS, (1.0,), ScaleRange(0.5, 1.5)])
def test_a_crop_that_no_scale_of_the_resized_image_fills_is_refused(scales):
    largest = 1 if scales == (1.0,) else 1.5
    high, wide = int(72 * largest), int(128 * largest)
    TrainTransform((high, wide), scales, resize=(72, 128))
    TrainTransform((high + 1, wide), scales)
    for crop in ((high + 1, wide), (high, wide + 1)):
        with pytest.raises(ValueError, match=rf"crop_size .*{crop[0]}, {crop[1]}.* larger than"):
            TrainTransform(crop, scales, resize=(72, 128))


@pytest.mark.parametrize(
    ("crop", "options", "message"),
    [
        ((32, 65), {}, r"crop_size must be .* got \[32, 65\]"),
        ((65, 100_000), {}, "crop_size must be"),
        ("all", {}, "crop_size must be a number, a pair or whole, got 'all'"),
        (65, {"resize": (720, 8193)}, r"resize must be .* got \[720, 8193\]"),
        (65, {"resize": (0, 720)}, "resize must be"),
    ],
)
def test_sizes_out_of_range_are_refused(crop, options, message):
    with pytest.raises(ValueError, match=message):
        TrainTransform(crop, AUTHORS, **options)


@pytest.mark.parametrize("scales", [(s,) for s in ODD] + [ScaleRange(0.4, 2.2)])
def test_crop_is_shifted_by_less_than_a_pixel_at_other_scales(scales):
    y, x = np.mgrid[:230, :250].astype(np.uint8)  # the colors and the labels tell the place
    image = np.stack([x, y, x], -1)
    for seed in range(25):
        for mask in (x, y):
            fast, expected = both(image, mask, 65, scales, seed)
            scale = scales.min if isinstance(scales, ScaleRange) else scales[0]
            shift = 1 / scale  # a pixel of the crop, in pixels of the source
            inside = (expected[1] < 255) & (fast[1] < 255)
            np.testing.assert_array_equal(fast[1] == 255, expected[1] == 255)
            for a, b, rounding in zip(fast, expected, (2, 1), strict=True):
                assert np.abs(a.astype(int) - b)[inside].max() <= shift + rounding
            np.testing.assert_array_equal(fast[0][~inside], expected[0][~inside])


@pytest.mark.parametrize("scale", [0.5, 0.75, 1.25, 1.5])
def test_scaling_is_bilinear_between_pixel_centers(scale):
    image, mask = sample((80, 92))
    crop = int(92 * scale) + 1  # all of it
    fast = TrainTransform(max(crop, 33), (scale,))(image, mask, Unflipped())[0]
    height, width = int(80 * scale), int(92 * scale)
    other = F.interpolate(
        torch.from_numpy(image).permute(2, 0, 1)[None].float(),
        scale_factor=scale,
        mode="bilinear",
        align_corners=False,
    )
    other = other[0].permute(1, 2, 0).numpy()
    assert np.abs(fast[:height, :width] - other).max() <= 1


class Unflipped:
    """A generator that always draws the first of what there is, and never mirrors."""

    def integers(self, high):
        return 0

    def random(self):
        return 0.9


def crops(transform, image, mask, number=3000):
    rng = np.random.default_rng(0)
    return (transform(image, mask, rng) for _ in range(number))


def chi_square(counts):
    expected = sum(counts) / len(counts)
    return sum((count - expected) ** 2 / expected for count in counts)


def test_crop_origins_are_uniform_and_half_of_the_crops_are_mirrored():
    y, x = np.mgrid[:37, :43].astype(np.uint8)
    image = np.stack([y, x, x], -1)
    tops, lefts, mirrored = np.zeros(5), np.zeros(11), 0
    for crop, _ in crops(TrainTransform(33, (1.0,)), image, x):
        tops[crop[0, 0, 0]] += 1
        lefts[crop[0, :, 1].min()] += 1
        mirrored += crop[0, 0, 1] > crop[0, 1, 1]
    assert chi_square(tops) < 18.5  # p = 0.001 at 4 degrees of freedom
    assert chi_square(lefts) < 29.6  # 10 degrees
    assert abs(mirrored - 1500) < 3.3 * np.sqrt(750)


def test_every_listed_scale_is_equally_likely():
    image, mask = sample((40, 40), classes=5)
    mask[mask == 255] = 0
    counts = dict.fromkeys((int(40 * scale) for scale in AUTHORS), 0)
    for _, crop in crops(TrainTransform(65, AUTHORS), image, mask):
        counts[(crop != 255).any(1).sum()] += 1
    assert chi_square(counts.values()) < 18.5


def test_a_range_of_scales_is_uniform_and_never_left():
    mask = np.zeros((100, 100), np.uint8)
    image = np.zeros((100, 100, 3), np.uint8)
    sides = [
        (crop == 0).any(1).sum()
        for _, crop in crops(TrainTransform(161, ScaleRange(0.5, 1.5)), image, mask)
    ]
    assert min(sides) in (50, 51)
    assert max(sides) in (148, 149, 150)
    assert chi_square(np.histogram(sides, 10, (50, 150))[0]) < 27.9  # 9 degrees


@SCALES
def test_padding_is_mean_color_and_void_at_the_bottom_and_right_only(scale):
    image, mask = np.zeros((30, 40, 3), np.uint8), np.zeros((30, 40), np.uint8)
    height, width = int(30 * scale), int(40 * scale)
    seen = set()
    for crop, labels in crops(TrainTransform(129, (scale,)), image, mask, 20):
        mirrored = labels[0, 0] == 255
        if mirrored:
            crop, labels = crop[:, ::-1], labels[:, ::-1]
        assert (labels[:height, :width] == 0).all()
        assert (crop[:height, :width] == 0).all()
        assert (labels == 0).sum() == height * width
        assert set(labels[labels != 0].tolist()) == {255}
        assert (crop[labels == 255] == MEAN).all()
        seen.add(bool(mirrored))
    assert seen == {True, False}


@SCALES
@pytest.mark.parametrize("size", [(50, 70), (150, 100)])
def test_labels_are_never_blended(scale, size):
    rng = np.random.default_rng(0)
    mask = rng.choice([3, 10, 17, 200], size).astype(np.uint8)
    image = np.zeros((*size, 3), np.uint8)
    for _, crop in crops(TrainTransform(65, (scale,)), image, mask, 10):
        assert set(np.unique(crop).tolist()) <= {3, 10, 17, 200, 255}
        assert len(np.unique(crop)) >= 4


@pytest.mark.parametrize("scales", [AUTHORS, *((s,) for s in ODD), ScaleRange(0.4, 2)])
def test_image_and_mask_stay_aligned(scales):
    rng = np.random.default_rng(1)
    colors = rng.integers(0, 256, (256, 3)).astype(np.uint8)
    colors[255] = MEAN
    mask = rng.integers(0, 6, (9, 11)).astype(np.uint8).repeat(20, 0).repeat(20, 1)
    checked = 0
    for crop, labels in crops(TrainTransform(97, scales), colors[mask], mask, 30):
        assert crop.shape == (97, 97, 3)
        assert labels.shape == (97, 97)
        assert crop.dtype == labels.dtype == np.uint8
        window = np.ones(
            (5, 5), np.uint8
        )  # pixels farther than 2 from another class are not blended
        interior = cv2.dilate(labels, window) == cv2.erode(labels, window)
        interior[:3] = interior[-3:] = interior[:, :3] = interior[:, -3:] = False
        np.testing.assert_array_equal(crop[interior], colors[labels[interior]])
        checked += interior.sum()
    assert checked > 30 * 500


@SCALES
@pytest.mark.parametrize("size", [(1, 1), (1, 90), (90, 1), (2, 300), (3, 3), (33, 32)])
def test_tiny_images_are_scaled_and_padded(scale, size):
    image, mask = np.full((*size, 3), 9, np.uint8), np.full(size, 7, np.uint8)
    height, width = (min(max(int(side * scale), 1), 33) for side in size)
    for crop, labels in crops(TrainTransform(33, (scale,)), image, mask, 4):
        assert crop.shape == (33, 33, 3)
        assert (labels == 7).sum() == height * width
        np.testing.assert_array_equal((crop == 9).all(-1), labels == 7)


@pytest.mark.filterwarnings("error")
def test_source_is_left_alone_and_may_be_read_only():
    image, mask = sample((60, 60))
    kept = image.copy(), mask.copy()
    image.setflags(write=False)
    mask.setflags(write=False)
    for _ in crops(TrainTransform(60, AUTHORS, 0.5), image, mask, 40):
        pass
    np.testing.assert_array_equal(image, kept[0])
    np.testing.assert_array_equal(mask, kept[1])


def test_jitter_changes_colors_only():
    image, mask = sample((90, 80))
    plain, jittered = TrainTransform(65, AUTHORS), TrainTransform(65, AUTHORS, 0.4)
    for seed in range(10):
        one = plain(image, mask, np.random.default_rng(seed))
        other = jittered(image, mask, np.random.default_rng(seed))
        np.testing.assert_array_equal(one[1], other[1])
        assert other[0].shape == (65, 65, 3)
        assert other[0].dtype == np.uint8
        assert np.abs(one[0].astype(int) - other[0]).mean() > 1


def test_jitter_spans_its_range_of_brightness():
    image, mask = np.full((33, 33, 3), 100, np.uint8), np.zeros((33, 33), np.uint8)
    values = [int(crop[0, 0, 0]) for crop, _ in crops(TrainTransform(33, (1,), 0.3), image, mask)]
    assert all(67 <= value <= 130 for value in values)  # gray: only the brightness shows
    assert min(values) < 72
    assert max(values) > 128
    assert abs(np.mean(values) - 100) < 2


def test_jitter_of_zero_is_none():
    image, mask = sample((90, 80))
    one = TrainTransform(65, AUTHORS)(image, mask, np.random.default_rng(3))
    other = TrainTransform(65, AUTHORS, 0.0)(image, mask, np.random.default_rng(3))
    np.testing.assert_array_equal(one[0], other[0])
    assert [crop.tobytes() for crop, _ in crops(TrainTransform(65, (1,)), image, mask, 5)] == [
        crop.tobytes() for crop, _ in crops(TrainTransform(65, (1,), 0.0), image, mask, 5)
    ]


def test_same_generator_state_gives_the_same_crop_and_the_next_another():
    image, mask = sample((90, 80))
    transform = TrainTransform(49, AUTHORS, 0.2)
    one, two = ([c.tobytes() for c, _ in crops(transform, image, mask, 8)] for _ in range(2))
    assert one == two
    assert all(a != b for a, b in pairwise(one))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((32, AUTHORS), "crop_size .* got 32"),
        ((0, AUTHORS), "crop_size"),
        ((65, ()), "scales"),
        ((65, (1.0, 0.0)), "scales"),
        ((65, (-0.5, 1.0)), "scales"),
        ((65, ScaleRange(0, 1)), "scales"),
        ((65, ScaleRange(1.5, 0.5)), "scales"),
        ((65, (1.0, float("nan"))), "scales"),
        ((65, (float("inf"),)), "scales"),
        ((65, (1e9,)), "scales"),
        ((65, (1e-9,)), "scales"),
        ((65, ScaleRange(float("nan"), 1)), "scales"),
        ((65, ScaleRange(0.5, float("nan"))), "scales"),
        ((65, ScaleRange(0.5, float("inf"))), "scales"),
        ((100_000, AUTHORS), "crop_size .* got 100000"),
        ((65, AUTHORS, -0.1), "color_jitter .* got -0.1"),
        ((65, AUTHORS, 1.0), "color_jitter"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        TrainTransform(*arguments)
