"""What holds whatever the backend: checks, invariants, kinds of input."""

import re
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from crf_inputs import random_image, scores_like_a_network
from PIL import Image

from deeplab_lit import crf as crf_package
from deeplab_lit.crf import CRFError, DenseCRF
from deeplab_lit.crf.parameters import in_words

SIZE = (24, 36)
IMAGE = random_image(SIZE)
PROBABILITIES = scores_like_a_network(5, SIZE)


@pytest.mark.parametrize("normalization", ["symmetric", "after"])
def test_gives_the_kind_it_was_given(backend, normalization):
    crf = DenseCRF(backend=backend, normalization=normalization)
    array = crf(IMAGE, PROBABILITIES)
    assert isinstance(array, np.ndarray)
    assert array.dtype == np.float32
    assert array.shape == PROBABILITIES.shape
    tensor = crf(torch.from_numpy(IMAGE), torch.from_numpy(PROBABILITIES))
    assert isinstance(tensor, torch.Tensor)
    assert tensor.dtype == torch.float32
    np.testing.assert_array_equal(tensor.numpy(), array)
    np.testing.assert_allclose(array.sum(0), 1, atol=1e-5)
    assert np.abs(array - PROBABILITIES).max() > 0.01  # it did something


def test_input_is_left_as_it_was(backend):
    image, probabilities = IMAGE.copy(), PROBABILITIES.copy()
    image.flags.writeable = probabilities.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        DenseCRF(backend=backend)(image, probabilities)
    np.testing.assert_array_equal(image, IMAGE)
    np.testing.assert_array_equal(probabilities, PROBABILITIES)


def test_any_memory_layout_and_floating_type(backend):
    crf = DenseCRF(backend=backend)
    expected = crf(IMAGE, PROBABILITIES)
    channels_first = np.ascontiguousarray(IMAGE.transpose(2, 0, 1)).transpose(1, 2, 0)
    np.testing.assert_array_equal(
        crf(channels_first, np.asfortranarray(PROBABILITIES.astype(np.float64))), expected
    )
    np.testing.assert_array_equal(crf(IMAGE[::-1, :, ::-1][::-1, :, ::-1], PROBABILITIES), expected)
    half = crf(IMAGE, PROBABILITIES.astype(np.float16))
    assert np.abs(half - expected).max() < 0.02


def test_batch_equals_one_by_one(backend):
    images = np.stack([random_image(SIZE, seed) for seed in range(3)])
    batch = np.stack([scores_like_a_network(5, SIZE, seed) for seed in range(3)])
    crf = DenseCRF(backend=backend)
    together = crf(images, batch)
    alone = np.stack([crf(i, p) for i, p in zip(images, batch, strict=True)])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_deterministic(backend):
    crf = DenseCRF(backend=backend)
    np.testing.assert_array_equal(crf(IMAGE, PROBABILITIES), crf(IMAGE, PROBABILITIES))


def test_mirrored_input_gives_the_mirrored_result(backend):
    crf = DenseCRF(backend=backend, bi_xy_std=20, bi_rgb_std=20, pos_xy_std=3)
    plain = crf(IMAGE, PROBABILITIES)
    mirrored = crf(IMAGE[:, ::-1].copy(), PROBABILITIES[..., ::-1].copy())[..., ::-1]
    # not exact: the lattice lies differently under the pixels
    assert (plain.argmax(0) == mirrored.argmax(0)).mean() > 0.95


def test_classes_are_interchangeable(backend):
    order = [3, 1, 4, 0, 2]
    crf = DenseCRF(backend=backend)
    np.testing.assert_allclose(
        crf(IMAGE, PROBABILITIES[order]), crf(IMAGE, PROBABILITIES)[order], atol=1e-5
    )


@pytest.mark.parametrize("off", [{"bi_w": 0, "pos_w": 0}, {"iterations": 0}])
def test_without_messages_the_input_comes_back(backend, off):
    np.testing.assert_allclose(
        DenseCRF(backend=backend, **off)(IMAGE, PROBABILITIES), PROBABILITIES, atol=2e-5
    )


def test_only_one_kernel(backend):
    for off in ({"bi_w": 0}, {"pos_w": 0}):
        refined = DenseCRF(backend=backend, **off)(IMAGE, PROBABILITIES)
        assert np.abs(refined - PROBABILITIES).max() > 0.01
        np.testing.assert_allclose(refined.sum(0), 1, atol=1e-5)


def test_constant_image(backend):
    refined = DenseCRF(backend=backend)(np.full((*SIZE, 3), 77, np.uint8), PROBABILITIES)
    assert np.isfinite(refined).all()
    # every pixel looks alike, so the most frequent class takes over
    winner = np.bincount(PROBABILITIES.argmax(0).ravel()).argmax()
    assert (refined.argmax(0) == winner).mean() > 0.5


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (2, 2), (3, 5)])
def test_tiny_images(backend, size):
    probabilities = np.full((3, *size), 0.2, np.float32)
    probabilities[1] = 0.6
    for normalization in ("symmetric", "after"):
        crf = DenseCRF(backend=backend, normalization=normalization)
        refined = crf(random_image(size), probabilities)
        np.testing.assert_allclose(refined.sum(0), 1, atol=1e-5)
        assert (refined.argmax(0) == 1).all()
        assert (refined[1] >= 0.6).all()  # agreement makes surer


def test_one_class(backend):
    ones = np.ones((1, *SIZE), np.float32)
    np.testing.assert_allclose(DenseCRF(backend=backend)(IMAGE, ones), ones, atol=1e-6)


def test_probabilities_of_exactly_0_and_1(backend):
    labels = PROBABILITIES.argmax(0)
    hard = np.eye(5, dtype=np.float32)[labels].transpose(2, 0, 1)
    refined = DenseCRF(backend=backend)(IMAGE, hard)
    assert np.isfinite(refined).all()
    np.testing.assert_allclose(refined.sum(0), 1, atol=1e-5)
    assert (refined.argmax(0) == labels).mean() > 0.8


def test_huge_weights_do_not_overflow(backend):
    refined = DenseCRF(backend=backend, bi_w=1000, pos_w=1000)(IMAGE, PROBABILITIES)
    assert np.isfinite(refined).all()
    np.testing.assert_allclose(refined.sum(0), 1, atol=1e-5)


IMAGES_REFUSED = {
    "float": (IMAGE.astype(np.float32), "uint8"),
    "mean-subtracted": (IMAGE.astype(np.float32) - 104, "before the mean is taken off"),
    "unit": (IMAGE.astype(np.float32) / 255, "divided by 255"),
    "int": (IMAGE.astype(np.int64), "int64"),
    "tensor": (torch.from_numpy(IMAGE).float(), "uint8"),
    "gray": (IMAGE[..., 0], r"\(H,W,3\).*convert\('RGB'\)"),
    "transparent": (np.dstack([IMAGE, IMAGE[..., :1]]), r"convert\('RGB'\)"),
    "of Pillow": (Image.fromarray(IMAGE), r"np.asarray\(image.convert\('RGB'\)\)"),
    "channels first": (IMAGE.transpose(2, 0, 1), "channels first"),
    "list": (IMAGE.tolist(), "list"),
    "empty": (IMAGE[:0], "no pixels"),
}


@pytest.mark.parametrize("case", IMAGES_REFUSED)
def test_refuses_images(case):
    image, message = IMAGES_REFUSED[case]
    with pytest.raises(CRFError, match=message):
        DenseCRF(backend="torch")(image, PROBABILITIES)


def nan_at_one_pixel():
    broken = PROBABILITIES.copy()
    broken[2, 3, 4] = np.nan
    return broken


PROBABILITIES_REFUSED = {
    "logits": (np.log(PROBABILITIES), "look like logits"),
    "percent": (PROBABILITIES * 100, "0…1; .*Divide scores by their sum"),
    "labels": (PROBABILITIES.argmax(0), "floating-point.*each pixel's class 0.7"),
    "no batch": (PROBABILITIES[None], r"\(B,C,H,W\) with \(B,H,W,3\)"),
    "swapped": (PROBABILITIES.transpose(0, 2, 1), "swapped"),
    "classes last": (PROBABILITIES.transpose(1, 2, 0), "classes come last"),
    "coarse": (PROBABILITIES[:, ::8, ::8], "Upsample"),
    "NaN": (nan_at_one_pixel(), "nan.*overflowed"),
    "infinite": (np.full_like(PROBABILITIES, np.inf), "inf.*overflowed"),
    "no sum": (PROBABILITIES / 2, "sums of 0.5.*Divide scores by their sum"),
    "sigmoids": (np.full_like(PROBABILITIES, 0.9), "sums of 4.5"),
    "no classes": (PROBABILITIES[:0], "no classes"),
    "tensor of labels": (torch.from_numpy(PROBABILITIES.argmax(0)), "floating-point"),
    "text": (PROBABILITIES.astype(str), "numbers"),
}


@pytest.mark.parametrize("case", PROBABILITIES_REFUSED)
def test_refuses_probabilities(case):
    probabilities, message = PROBABILITIES_REFUSED[case]
    with pytest.raises(CRFError, match=message):
        DenseCRF(backend="torch")(IMAGE, probabilities)


@pytest.mark.parametrize("kind", [np.array, torch.tensor])
def test_what_it_advises_about_axes_can_be_typed(kind):
    image, probabilities = kind(IMAGE.transpose(2, 0, 1)), kind(PROBABILITIES.transpose(1, 2, 0))
    crf = DenseCRF(backend="torch")

    def advised(*arguments):
        with pytest.raises(CRFError, match="movedim") as refused:
            crf(*arguments)
        advice = str(refused.value).rpartition(": use ")[2].rstrip(".")
        array, tensor = advice.split(", of a tensor ")
        return eval(array if kind is np.array else tensor, {"np": np}, names)

    names = {"image": image, "probabilities": probabilities}
    upright = advised(image, kind(PROBABILITIES))
    np.testing.assert_array_equal(upright, IMAGE)
    np.testing.assert_array_equal(advised(upright, probabilities), PROBABILITIES)


def test_a_lattice_too_fine_is_refused(backend):
    with pytest.raises(CRFError, match="too fine"):
        DenseCRF(backend=backend, bi_xy_std=1e-3, bi_rgb_std=1e-3)(IMAGE, PROBABILITIES)


def test_a_backend_that_is_not_installed_is_refused_before_any_work(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    with pytest.raises(CRFError, match="pydensecrf is not installed"):
        DenseCRF(backend="pydensecrf")


def test_says_which_backend_runs(backend):
    crf = DenseCRF(backend=backend, pos_w=2)
    assert crf.backend_for("cpu") == backend
    assert DenseCRF(backend="auto").backend_for("cuda") == "torch"
    settings = crf.settings("cpu")
    assert settings == {
        "bi_w": 4,
        "bi_xy_std": 67,
        "bi_rgb_std": 3,
        "pos_w": 2,
        "pos_xy_std": 1,
        "iterations": 10,
        "normalization": "symmetric",
        "backend": backend,
    }
    parameters = "bi_w 4, bi_xy_std 67, bi_rgb_std 3, pos_w 2, pos_xy_std 1, iterations 10"
    assert in_words(settings | {"miou": 0.5}) == f"{backend} backend, {parameters}, symmetric"
    assert in_words({"radius": 3, "miou": 0.5}) == ""


def test_the_page_s_example_moves_the_border_to_the_edge():
    page = Path(crf_package.__file__).with_name("README.md").read_text("utf-8")
    code, threads = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(code, names)
    before, after = (names[name].argmax(0).argmax(1) for name in ("probabilities", "refined"))
    assert set(before) == {55}
    assert set(after) == {64}
    alone = names["refined"]
    exec(threads, names)
    assert len(names["refined"]) == 4
    assert all(np.array_equal(one, alone) for one in names["refined"])
    names["DenseCRF"](**names["PRESETS"]["vgg16"])  # as the page has it
