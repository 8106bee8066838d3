"""Our backends against pydensecrf: real and random images, sizes, class counts, presets."""

import sys

import numpy as np
import pytest
from crf_inputs import photo, random_image, scores_like_a_network

from deeplab_lit.crf import PRESETS, CRFError, DenseCRF

# the protocol's search begins with the paper's w2 = σγ = 3
SETTINGS = {
    **PRESETS,
    "paper": {"bi_w": 3, "bi_xy_std": 30, "bi_rgb_std": 6, "pos_w": 3, "pos_xy_std": 3},
}
PHOTOS = {
    "voc": ("VOCdevkit/VOC2012/JPEGImages/2007_000032.jpg", (120, 202)),
    "camvid": ("camvid/images/val/0016E5_07959.jpg", (150, 110)),
}


def assert_agrees(image, probabilities, backend, spare=0, **settings):
    """Marginals within 1e-4, but for the share `spare`; labels on 99.999 % of the pixels."""
    pytest.importorskip("pydensecrf")
    assert image.shape[0] * image.shape[1] % 4 == 0  # see pydensecrf_backend.py
    expected = DenseCRF(backend="pydensecrf", **settings)(image, probabilities)
    refined = DenseCRF(backend=backend, **settings)(image, probabilities)
    off = np.abs(refined - expected)
    assert off.max() < (1e-3 if spare else 1e-4)
    assert (off > 1e-4).mean() <= spare
    assert (refined.argmax(0) == expected.argmax(0)).mean() >= 0.99999
    np.testing.assert_allclose(refined.sum(0), 1, atol=1e-5)


@pytest.mark.parametrize("normalization", ["symmetric", "after"])
@pytest.mark.parametrize("preset", SETTINGS)
@pytest.mark.parametrize("name", PHOTOS)
def test_photos(backend, name, preset, normalization):
    image = photo(*PHOTOS[name])
    probabilities = scores_like_a_network(21, image.shape[:2])
    assert_agrees(image, probabilities, backend, normalization=normalization, **SETTINGS[preset])


@pytest.mark.parametrize("num_classes", [2, 19, 21, 60])
@pytest.mark.parametrize("size", [(4, 4), (31, 64), (62, 90)])
def test_random_images(backend, size, num_classes):
    image = random_image(size, seed=num_classes)
    probabilities = scores_like_a_network(num_classes, size, seed=num_classes)
    assert_agrees(image, probabilities, backend)


@pytest.mark.parametrize("num_classes", [2, 19])
def test_noise(backend, num_classes):
    # at a few pixels of pure noise ten iterations amplify the rounding of float32: there
    # pydensecrf too is up to 1.3e-4 away from the same computation in float64
    image = random_image((62, 90), seed=num_classes, kind="noise")
    probabilities = scores_like_a_network(num_classes, (62, 90), seed=num_classes)
    assert_agrees(image, probabilities, backend, spare=1e-4)


@pytest.mark.parametrize("normalization", ["symmetric", "after"])
def test_hard_and_diffuse_probabilities(backend, normalization):
    image = random_image((60, 80), seed=5)
    diffuse = scores_like_a_network(7, (60, 80), sharpness=1.0)
    hard = np.eye(7, dtype=np.float32)[diffuse.argmax(0)].transpose(2, 0, 1)
    for probabilities in (diffuse, hard):
        assert_agrees(image, probabilities, backend, normalization=normalization)


def test_single_kernels(backend):
    image, probabilities = random_image((40, 50)), scores_like_a_network(4, (40, 50))
    assert_agrees(image, probabilities, backend, bi_w=0, pos_xy_std=4)
    assert_agrees(image, probabilities, backend, pos_w=0, bi_xy_std=9)


def test_the_two_normalizations_differ():
    pytest.importorskip("pydensecrf")
    image, probabilities = random_image((40, 50)), scores_like_a_network(4, (40, 50))
    refined = [
        DenseCRF(backend="pydensecrf", normalization=n)(image, probabilities)
        for n in ("symmetric", "after")
    ]
    assert np.abs(refined[0] - refined[1]).max() > 1e-3


def test_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    with pytest.raises(CRFError, match="pip install pydensecrf2"):
        DenseCRF(backend="pydensecrf")(random_image((4, 4)), scores_like_a_network(2, (4, 4)))
