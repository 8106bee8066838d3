import sys

import numpy as np
import pytest
import torch
from crf_inputs import random_image, scores_like_a_network

from deeplab_lit.benchmark.crf_backends import compare_backends
from deeplab_lit.crf import PRESETS


def test_rows_for_every_backend_that_works():
    sizes = [(20, 24), (24, 30)]
    images = [random_image(size) for size in sizes]
    probabilities = [scores_like_a_network(3, size) for size in sizes]
    threads = torch.get_num_threads()
    rows = compare_backends(images, probabilities, PRESETS, rounds=2)
    assert torch.get_num_threads() == threads
    assert {row.setting for row in rows} == set(PRESETS)
    assert "torch" in {row.backend for row in rows}
    for row in rows:
        assert len(row.seconds) == len(row.ratios) == 4
        assert row.milliseconds > 0
        assert 0 < row.vertices_per_pixel < 6
        assert row.max_difference < 1e-4
        assert row.label_agreement == 1
    assert rows[0].ratio == pytest.approx(1)


def test_without_pydensecrf_one_of_ours_is_the_reference(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    image, scores = random_image((8, 8)), scores_like_a_network(2, (8, 8))
    rows = compare_backends([image], [scores], {"vgg16": PRESETS["vgg16"]}, rounds=1)
    assert rows[0].backend in ("native", "torch")
    assert rows[0].ratio == 1
    assert np.isfinite(rows[0].milliseconds)
