"""The compiled backend's library: the build, and life without a compiler."""

import importlib.util
import multiprocessing
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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


def planted(folder, monkeypatch, mode=0o755):
    """A library of the right name that somebody has put there; it does not load."""
    monkeypatch.setattr(build, "_compile", lambda built: built.write_bytes(b"of ours"))
    monkeypatch.setattr(build.shutil, "which", lambda name: name)
    place = build._build()
    place.write_bytes(b"of theirs")
    place.chmod(mode)
    return place


own_files = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="files have no such owners")


@own_files
@pytest.mark.parametrize("mode", [0o777, 0o757])
def test_a_library_that_others_may_write_is_built_anew(unbuilt, monkeypatch, mode):
    place = planted(unbuilt, monkeypatch, mode)
    assert build._build() == place
    assert place.read_bytes() == b"of ours"


@own_files
def test_a_library_of_our_own_is_taken_as_it_is(unbuilt, monkeypatch):
    place = planted(unbuilt, monkeypatch)
    assert build._build() == place
    assert place.read_bytes() == b"of theirs"


@own_files
def test_our_folder_is_closed_to_others(unbuilt, monkeypatch):
    place = planted(unbuilt, monkeypatch)
    place.parent.chmod(0o777)
    build._build()
    assert place.parent.stat().st_mode & 0o022 == 0


@own_files
def test_a_folder_or_library_of_another_user_is_never_taken(unbuilt, monkeypatch):
    place = planted(unbuilt, monkeypatch)
    if os.geteuid():
        monkeypatch.setattr(os, "geteuid", lambda: 54321)
    else:
        os.chown(place.parent, 54321, 54321)
    with pytest.warns(UserWarning, match="belongs to another user, .* TORCH_EXTENSIONS_DIR"):
        own = build._build()
    assert own.parent != place.parent
    assert own.parent.stat().st_mode & 0o777 == 0o700
    assert place.read_bytes() == b"of theirs"


@own_files
def test_a_place_that_everyone_may_exchange_is_not_used(unbuilt, monkeypatch):
    place = planted(unbuilt, monkeypatch)
    unbuilt.chmod(0o777)
    with pytest.warns(UserWarning, match="everyone may write to .*, so the CRF's library"):
        assert build._build().parent != place.parent
    unbuilt.chmod(0o1777)  # as /tmp: only its owner may rename a folder there
    assert build._build() == place


def test_a_library_without_our_functions_is_no_catastrophe(unbuilt, monkeypatch):
    other = importlib.util.find_spec("_ctypes").origin  # some library
    monkeypatch.setattr(build, "_build", lambda: Path(other))
    with pytest.warns(UserWarning, match="is another library .*: remove it.*torch backend takes"):
        assert DenseCRF().backend_for("cpu") == "torch"


def test_without_a_home_torch_takes_over(unbuilt, monkeypatch):
    def homeless(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("TORCH_EXTENSIONS_DIR")
    monkeypatch.setattr(Path, "expanduser", homeless)
    with pytest.warns(UserWarning, match="home directory.*: the torch backend takes over"):
        assert DenseCRF().backend_for("cpu") == "torch"


def ask_in_two_threads(answers):
    with ThreadPoolExecutor(2) as pool:
        answers.put(list(pool.map(lambda _: DenseCRF().backend_for("cpu"), range(2))))


def test_processes_and_threads_that_build_at_once(built, unbuilt, monkeypatch):
    monkeypatch.setattr(build, "FLAGS", ["-O0", *build.FLAGS[1:]])  # in a third of the time
    fork = multiprocessing.get_context("fork")  # fork: nothing to import again
    answers = fork.Queue()
    processes = [fork.Process(target=ask_in_two_threads, args=(answers,)) for _ in range(2)]
    for process in processes:
        process.start()
    assert [answers.get(timeout=300) for _ in processes] == [["native"] * 2] * 2
    for process in processes:
        process.join()
    assert [path.suffix for path in (unbuilt / "deeplab_lit").iterdir()] == [".so"]
