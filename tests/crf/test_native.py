"""The compiled backend: threads, the build, and life without a compiler."""

import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from crf_inputs import native_or_skip, random_image, scores_like_a_network

from deeplab_lit.crf import CRFError, DenseCRF, dense_crf, native

SIZE = (45, 64)
IMAGE = random_image(SIZE)
PROBABILITIES = scores_like_a_network(9, SIZE)


@pytest.fixture
def built():
    native_or_skip()


@pytest.fixture
def unbuilt(monkeypatch, tmp_path):
    """As on a machine where nothing was built yet."""
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    native._load.cache_clear()
    dense_crf._native_or_torch.cache_clear()
    yield tmp_path
    native._load.cache_clear()
    dense_crf._native_or_torch.cache_clear()


@pytest.mark.parametrize("num_classes", [1, 8, 9, 33, 41, 65, 100, 150, 200, 256])
def test_every_row_width_equals_torch(built, num_classes):
    image, probabilities = random_image((12, 20)), scores_like_a_network(num_classes, (12, 20))
    np.testing.assert_allclose(
        DenseCRF(backend="native")(image, probabilities),
        DenseCRF(backend="torch")(image, probabilities),
        atol=1e-5,
    )


def test_too_many_classes(built):
    many = np.full((257, 2, 2), 1 / 257, np.float32)
    with pytest.raises(CRFError, match="at most 256 classes, got 257"):
        DenseCRF(backend="native")(random_image((2, 2)), many)


@pytest.mark.parametrize("threads", [2, 3, 5, 16])
def test_threads_change_nothing_but_rounding(built, threads):
    one = DenseCRF(backend="native", threads=1)(IMAGE, PROBABILITIES)
    many = DenseCRF(backend="native", threads=threads)
    np.testing.assert_allclose(many(IMAGE, PROBABILITIES), one, atol=2e-5)
    np.testing.assert_array_equal(many(IMAGE, PROBABILITIES), many(IMAGE, PROBABILITIES))


def test_more_threads_than_pixels(built):
    image, probabilities = random_image((1, 2)), scores_like_a_network(3, (1, 2))
    np.testing.assert_allclose(
        DenseCRF(backend="native", threads=8)(image, probabilities),
        DenseCRF(backend="torch")(image, probabilities),
        atol=1e-5,
    )


def test_images_in_python_threads(built):
    images = [random_image(SIZE, seed) for seed in range(6)]
    crf = DenseCRF(backend="native", threads=1)
    alone = [crf(image, PROBABILITIES) for image in images]
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(lambda image: crf(image, PROBABILITIES), images))
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("asked", ["auto", "native"])
def test_without_a_compiler_torch_takes_over_with_one_sentence(unbuilt, monkeypatch, asked):
    monkeypatch.setenv("CXX", "no-such-compiler")
    crf = DenseCRF(backend=asked)
    with pytest.warns(UserWarning, match="the torch backend takes over") as caught:
        refined = crf(IMAGE, PROBABILITIES)
    assert len(caught) == 1
    assert "no C++ compiler, looked for no-such-compiler" in str(caught[0].message)
    assert len(str(caught[0].message)) < 200
    assert crf.backend_for("cpu") == "torch"
    np.testing.assert_array_equal(refined, DenseCRF(backend="torch")(IMAGE, PROBABILITIES))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        crf(IMAGE, PROBABILITIES)  # said once
    assert not list(unbuilt.rglob("*.so"))


def test_a_compiler_that_fails_leaves_nothing_and_is_told_in_a_line(unbuilt, monkeypatch):
    monkeypatch.setenv("CXX", "false")
    with pytest.warns(UserWarning, match="the torch backend takes over") as caught:
        assert DenseCRF().backend_for("cpu") == "torch"
    assert len(str(caught[0].message)) < 300
    assert list((unbuilt / "deeplab_lit").iterdir()) == []


def test_a_broken_library_is_no_catastrophe(unbuilt, monkeypatch):
    broken = unbuilt / "broken.so"
    broken.write_bytes(b"not a library")
    monkeypatch.setattr(native, "_build", lambda: broken)
    with pytest.warns(UserWarning, match="the torch backend takes over"):
        assert DenseCRF().backend_for("cpu") == "torch"


def test_processes_and_threads_that_build_at_once(built, unbuilt):
    code = """
from concurrent.futures import ThreadPoolExecutor
from deeplab_lit.crf import DenseCRF
with ThreadPoolExecutor(2) as pool:
    print(set(pool.map(lambda _: DenseCRF().backend_for("cpu"), range(2))))
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate()[0].strip() for process in processes] == ["{'native'}"] * 2
    assert [path.suffix for path in (unbuilt / "deeplab_lit").iterdir()] == [".so"]
