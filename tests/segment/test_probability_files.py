import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from deeplab_lit.atomic import NoRoomError
from deeplab_lit.data.class_maps import read_class_maps
from deeplab_lit.segment.probability_files import Size, in_words, keep, room_for


def test_a_file_is_read_back_and_its_size_is_told(tmp_path):
    scores = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    probabilities = np.exp(scores) / np.exp(scores).sum(0)
    size = keep(tmp_path / "deep/a.npz", probabilities)
    assert size[1:] == ((tmp_path / "deep/a.npz").stat().st_size, 5 * 6 * 7 * 4)
    found = read_class_maps(tmp_path / "deep/a.npz", 5)
    np.testing.assert_allclose(found.maps, probabilities, rtol=2e-3)


def test_a_disk_without_room_for_the_other_files_is_refused(monkeypatch):
    """Two files of 1 and 3 MB are written, so that 8 more take 16 MB."""
    sizes = [Size(Path("out/a.npz"), n * 1_000_000, n * 10_000_000) for n in (1, 3)]
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=16_000_000))
    assert room_for(sizes, 10) == (
        "Probabilities: 2.00 MB an image, 20.00 MB as float32; about 0.02 GB more to write"
    )
    assert in_words(sizes) == "2.00 MB an image, 20.00 MB as float32"
    with pytest.raises(NoRoomError, match=r"out/\*\.npz needs 0\.02 GB, but .*--out"):
        room_for(sizes, 11)
