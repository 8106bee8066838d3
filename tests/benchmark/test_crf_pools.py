import sys

import pytest
from crf_inputs import random_image, scores_like_a_network

from deeplab_lit.benchmark import crf_pools
from deeplab_lit.benchmark.crf_pools import compare_pools


@pytest.fixture
def samples():
    sizes = [(12, 16), (16, 8), (12, 16)]
    return [(random_image(size), scores_like_a_network(3, size)) for size in sizes]


def test_every_backend_refines_the_whole_set_each_round(samples, monkeypatch):
    refined = []
    labels = crf_pools._labels

    def counted(samples, crf, index):
        refined.append((crf.backend, index))
        return labels(samples, crf, index)

    monkeypatch.setattr(crf_pools, "_labels", counted)
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
