import sys

import numpy as np
import pytest
import torch
from crf_inputs import random_image, scores_like_a_network

from deeplab_lit.benchmark import crf as benchmark_crf
from deeplab_lit.benchmark.crf import compare_backends, compare_pools
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


@pytest.fixture
def samples():
    sizes = [(12, 16), (16, 8), (12, 16)]
    return [(random_image(size), scores_like_a_network(3, size)) for size in sizes]


def test_every_backend_refines_the_whole_set_each_round(samples, monkeypatch):
    refined = []
    labels = benchmark_crf._labels

    def counted(samples, crf, index):
        refined.append((crf.backend, index))
        return labels(samples, crf, index)

    monkeypatch.setattr(benchmark_crf, "_labels", counted)
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    rows = compare_pools(samples, {"iterations": 2}, 2, rounds=2)
    backends = [row.backend for row in rows]
    assert backends in (["native", "torch"], ["torch"])
    counted = sorted((backend, i) for backend in backends for i in (0, 1, 2))
    assert sorted({*refined}) == counted
    assert len(refined) >= 3 * len(counted)
    reference, other = rows[0], rows[-1]
    assert reference.ratio == 1
    for mine, theirs, ratio in zip(other.seconds, reference.seconds, other.ratios, strict=True):
        assert ratio == pytest.approx(theirs / mine)


def test_pydensecrf_works_in_processes(samples):
    pytest.importorskip("pydensecrf")
    first, *_ = compare_pools(samples, {}, 2, rounds=1)
    assert first.backend == "pydensecrf"
    assert len(first.seconds) == 1
