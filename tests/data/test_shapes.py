import hashlib

import numpy as np
import pytest
import torch
from scipy import ndimage

from deeplab_lit.data import DataError, Shapes
from deeplab_lit.data.shapes import draw_sample

NAMES = ["background", "disc", "square", "triangle", "cross", "wire", "eye"]


def test_classes():
    assert list(Shapes.classes) == NAMES
    assert len(set(Shapes.classes.values())) == 7


def test_splits_share_no_image():
    data = Shapes(train_size=1_000_000, val_size=1_000_000)
    ids = [data.split(name).ids for name in ("train", "val", "test")]
    ends = [int(id) for one in ids for id in (one[0], one[-1])]
    assert ends == sorted(set(ends))
    assert [len(one) for one in ids] == [1_000_000] * 3


@pytest.mark.parametrize(("name", "first"), [("train", 0), ("val", 10**6), ("test", 2 * 10**6)])
def test_split_reads_the_samples_of_its_indices(name, first):
    split = Shapes(train_size=5, val_size=5, draw_seed=3).split(name)
    assert split.ids == [str(first + i) for i in range(5)]
    for read, drawn in zip(split.read(4), draw_sample(3, first + 4), strict=True):
        np.testing.assert_array_equal(read, drawn)


def test_bad_splits_are_refused():
    with pytest.raises(DataError, match="no split 'trainval'; it has train, val, test"):
        Shapes().split("trainval")
    for kwargs, name in (({"train_size": 0}, "train"), ({"val_size": 1_000_001}, "test")):
        with pytest.raises(DataError, match=f"Shapes {name}: 1 to 1,000,000 images"):
            Shapes(**kwargs).split(name)


@pytest.mark.parametrize("radius", [4, 51])
def test_discs_of_no_possible_size_are_refused(radius):
    with pytest.raises(DataError, match=r"--data\.max_disc must be in 5…50"):
        Shapes(max_disc=radius)


def test_the_size_of_discs_reaches_the_images():
    split = Shapes(max_disc=25).split("val")
    for read, drawn in zip(split.read(3), draw_sample(0, 1_000_003, 25), strict=True):
        np.testing.assert_array_equal(read, drawn)


DISC, WIRE, EYE, VOID = 1, 5, 6, 255
NUMBER = 300


@pytest.fixture(scope="module")
def samples():
    return [draw_sample(0, index) for index in range(NUMBER)]


def components(image, mask, label):
    """(region, colors) of the connected pieces of a class: slices and boolean shape."""
    pieces, _ = ndimage.label(mask == label)
    for number, place in enumerate(ndimage.find_objects(pieces), 1):
        shape = pieces[place] == number
        yield place, shape, image[place][shape]


def discs(image, mask, label):
    """(x, y, radius) of the pieces of a class that are whole discs."""
    for (rows, columns), shape, _ in components(image, mask, label):
        height, width = shape.shape
        if abs(height - width) <= 1 and 0.74 < shape.mean() < 0.83 and shape.sum() > 40:
            x, y = (columns.start + columns.stop - 1) / 2, (rows.start + rows.stop - 1) / 2
            yield x, y, (height + width) / 4


def test_images_and_masks_are_of_the_promised_kind(samples):
    for image, mask in samples:
        assert image.shape == (161, 161, 3)
        assert mask.shape == (161, 161)
        assert image.dtype == mask.dtype == np.uint8
        assert set(np.unique(mask).tolist()) <= {*range(7), VOID}
        assert image.std() > 5


def test_a_sample_depends_on_its_seed_and_index_only(samples):
    np.random.seed(1)  # noqa: NPY002  global generators must not matter
    torch.manual_seed(1)
    for index in (7, 3, 299, 0):
        image, mask = draw_sample(0, index)
        np.testing.assert_array_equal(image, samples[index][0])
        np.testing.assert_array_equal(mask, samples[index][1])


def test_indices_and_seeds_give_different_images(samples):
    drawn = [draw_sample(1, index) for index in range(20)]
    images = [image.tobytes() for image, _ in [*samples, *drawn]]
    assert len(set(images)) == NUMBER + 20


@pytest.mark.parametrize(
    ("index", "digest"),
    [
        (0, "620865943713ab73270d0ed995f9da88f178dd1f78b5b56435f0cbe59fde8216"),
        (1_000_000, "d6a7184bd2370e7fc104883c443a33251a9a5b995a0cccc6af0c5d2026cfcf2d"),
    ],
)
def test_masks_stay_the_same_so_that_results_stay_comparable(index, digest):
    assert hashlib.sha256(draw_sample(0, index)[1].tobytes()).hexdigest() == digest


@pytest.mark.parametrize(
    ("style", "row"),
    [
        ("plain", [(158, 94, 54), (142, 78, 38), (164, 100, 60), (189, 217, 224), (26, 67, 204)]),
        ("night", [(71, 86, 115), (76, 85, 115), (76, 75, 114), (138, 112, 70), (75, 76, 116)]),
    ],
)
def test_images_stay_the_same_but_for_the_last_bit_of_a_processors_sine(style, row):
    image, _ = draw_sample(0, 0, style=style)
    np.testing.assert_allclose(image[80, :160:32].astype(int), row, atol=1)


def test_every_class_is_frequent(samples):
    present = np.array([[(mask == c).any() for c in range(7)] for _, mask in samples[:200]])
    assert (present.mean(0) > 0.4).all()


def test_void_lies_between_any_two_classes(samples):
    for _, mask in samples:
        for one, other in ((mask[1:], mask[:-1]), (mask[:, 1:], mask[:, :-1])):
            touching = (one != other) & (one != VOID) & (other != VOID)
            assert not touching.any()


def test_void_is_a_band_of_one_pixel(samples):
    void = np.array([mask == VOID for _, mask in samples])
    solid = ndimage.binary_erosion(void, np.ones((1, 3, 3)))  # left over where outlines meet
    assert 0.02 < void.mean() < 0.2
    assert solid.sum() < 1e-3 * void.sum()


def test_discs_are_10_to_100_pixels_wide(samples):
    widths = [2 * r for image, mask in samples for *_, r in discs(image, mask, DISC)]
    assert len(widths) > 50
    assert 8 <= min(widths) < 18
    assert 80 < max(widths) <= 101


def test_an_eye_has_a_ring_around_it_and_a_disc_has_not(samples):
    def surrounded(image, mask, label):
        """For each whole disc away from the border: the part of the rays that meet wire."""
        angles = np.linspace(0, 2 * np.pi, 72, endpoint=False)
        for x, y, radius in discs(image, mask, label):
            if min(x, y, 160 - x, 160 - y) > radius + 30:
                far = radius + np.arange(0, 26, 0.5)
                rows = (y + np.outer(np.sin(angles), far)).round().astype(int)
                columns = (x + np.outer(np.cos(angles), far)).round().astype(int)
                yield (mask[rows, columns] == WIRE).any(1).mean()

    eyes, plain = (
        [part for image, mask in samples for part in surrounded(image, mask, label)]
        for label in (EYE, DISC)
    )
    assert len(eyes) > 20
    assert len(plain) > 10
    assert min(eyes) > 0.5  # the rest is covered by later objects
    assert np.median(eyes) > 0.95
    assert np.median(plain) < 0.3


def test_size_tells_no_disc_from_an_eye_if_discs_are_no_larger():
    drawn = [draw_sample(0, index, max_disc=25) for index in range(NUMBER)]
    largest = {
        label: max(r for image, mask in drawn for *_, r in discs(image, mask, label))
        for label in (DISC, EYE)
    }
    assert largest[DISC] == pytest.approx(largest[EYE], abs=1)


def test_colors_do_not_give_the_class_away(samples):
    labels, colors = [], []
    for image, mask in samples:
        for label in range(1, 7):
            for _, shape, pixels in components(image, mask, label):
                if shape.sum() >= 30:
                    labels.append(label)
                    colors.append(pixels.mean(0))
    labels, colors = np.array(labels), np.array(colors)
    train = np.arange(len(labels)) % 2 == 0
    means = np.array([colors[train & (labels == c)].mean(0) for c in range(1, 7)])
    distances = ((colors[~train][:, None] - means) ** 2).sum(-1)
    right = distances.argmin(1) + 1 == labels[~train]
    accuracy = np.mean([right[labels[~train] == c].mean() for c in range(1, 7)])
    assert accuracy < 0.25  # chance is 0.17


def test_objects_can_be_seen(samples):
    """Every larger piece of an object differs from the background around it."""
    contrast = []
    for image, mask in samples[:100]:
        background = image[mask == 0].astype(float).mean(0)
        for label in range(1, 7):
            for _, shape, pixels in components(image, mask, label):
                if shape.sum() >= 30:
                    contrast.append(np.abs(pixels - background).max(1).mean())
    assert min(contrast) > 20


def test_night_is_a_set_of_its_own_for_the_guards():
    plain, night = Shapes(), Shapes(style="night")
    assert (plain.id_space, plain.label("val")) == ("Shapes 0 50.0", "Shapes:val")
    assert night.id_space != plain.id_space
    assert night.label("val") == "Shapes/night:val"
    assert night.shared(night.labeled("val"), plain) == 0
    assert night.shared(night.labeled("val"), Shapes(style="night", draw_seed=0)) == 200


def test_a_style_that_does_not_exist_is_refused():
    with pytest.raises(DataError, match=r"--data\.style must be one of plain, night, got 'day'"):
        Shapes(style="day")


def test_images_stay_the_same_in_the_plain_style():
    image = draw_sample(0, 5, style="plain")[0]
    expected = "be45b0043e94a43a25958653026da2ce9acb8edd9f01630e29ac828ef21c5597"
    assert hashlib.sha256(image.tobytes()).hexdigest() == expected


def test_night_differs_in_its_looks_and_not_in_what_is_drawn(samples):
    split = Shapes(style="night", train_size=NUMBER).split("train")
    night = [split.read(index) for index in range(NUMBER)]
    assert not any((a[1] == b[1]).all() for a, b in zip(night, samples, strict=True))
    shares = [
        np.bincount(np.concatenate([mask.ravel() for _, mask in drawn]), minlength=256) / NUMBER
        for drawn in (night, samples)
    ]
    np.testing.assert_allclose(shares[0], shares[1], rtol=0.25)
    colors, plain = (
        np.mean([image.mean((0, 1)) for image, _ in drawn], axis=0) for drawn in (night, samples)
    )
    assert (colors < plain - 10).all()
    assert colors[0] < colors[1] < colors[2]
