"""The compiled backend's library: the build, and life without a compiler."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
from crf_inputs import native_or_skip, random_image, scores_like_a_network

from deeplab_lit.crf import DenseCRF, build, dense_crf

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
    build._load.cache_clear()
    dense_crf._native_or_torch.cache_clear()
    yield tmp_path
    build._load.cache_clear()
    dense_crf._native_or_torch.cache_clear()


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
    monkeypatch.setattr(build, "_build", lambda: broken)
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
