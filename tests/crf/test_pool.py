import threading

import pytest
import torch
from crf_inputs import random_image, scores_like_a_network

from deeplab_lit.crf import DenseCRF, pool
from deeplab_lit.crf.pool import RefiningPool, cores, memory

CRF = DenseCRF(backend="torch", iterations=2)


@pytest.fixture
def samples():
    sizes = [(12, 16), (16, 8), (12, 16), (8, 8), (16, 16)]
    return [(random_image(size), scores_like_a_network(3, size)) for size in sizes]


def test_images_come_out_as_if_refined_one_by_one(samples):
    side_by_side = RefiningPool(CRF, 2)
    done = [x for i, sample in enumerate(samples) for x in side_by_side.submit(i, *sample)]
    done += side_by_side.rest()
    assert sorted(refined.note for refined in done) == [0, 1, 2, 3, 4]
    for i, labels, seconds in done:
        assert torch.equal(labels, torch.from_numpy(CRF(*samples[i]).argmax(0)))
        assert seconds > 0


def test_a_slow_image_holds_up_no_other(samples, monkeypatch):
    """The first is not done before all others have come out."""
    others = threading.Event()

    def refine(self, image, probabilities):
        if image is samples[0][0]:
            assert others.wait(300)
        return probabilities

    monkeypatch.setattr(DenseCRF, "__call__", refine)
    side_by_side, done = RefiningPool(CRF, 2), []
    for i, sample in enumerate(samples):
        done += side_by_side.submit(i, *sample)
    for refined in side_by_side.rest():
        done.append(refined)
        if len(done) == 4:
            others.set()
    assert [refined.note for refined in done][-1] == 0


@pytest.mark.parametrize(("bytes", "most"), [(10**12, 4), (10**4, 1)])
def test_what_is_in_it_is_bounded_by_workers_and_memory(samples, monkeypatch, bytes, most):
    monkeypatch.setattr(pool, "memory", lambda: bytes)
    go, seen = threading.Event(), []

    def refine(self, image, probabilities):
        assert go.wait(300)
        return probabilities

    monkeypatch.setattr(DenseCRF, "__call__", refine)
    side_by_side = RefiningPool(CRF, 2)
    threading.Timer(0.3, go.set).start()
    for i, sample in enumerate(samples):
        side_by_side.submit(i, *sample)
        seen.append(len(side_by_side.waiting))
    assert len(list(side_by_side.rest())) > 0
    assert max(seen) == most


def test_a_failure_comes_out_where_it_is_waited_for(samples, monkeypatch):
    def refine(self, image, probabilities):
        raise MemoryError("none left")

    monkeypatch.setattr(DenseCRF, "__call__", refine)
    side_by_side = RefiningPool(CRF, 1)
    side_by_side.submit(0, *samples[0])
    with pytest.raises(MemoryError, match="none left"):
        list(side_by_side.rest())
    side_by_side.stop()


def test_the_machine_tells_its_size():
    assert cores() >= 1
    assert memory() > 10**8
