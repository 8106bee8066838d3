import itertools

import numpy as np
import pytest
from torch.utils.data import DistributedSampler

from deeplab_lit.loading.sampler import EverySampleOnce, TrainStream


def make(n, rank=0, *, steps=0, **kwargs):
    return TrainStream(range(n), rank=rank, steps_done=lambda: steps, **kwargs)


def optimizer_steps(n, epochs, *, first_step=0, replicas=1, accumulate=1, batch_size=2, seed=0):
    """The stream as the optimizer sees it: for each step the (position, index) of all processes."""
    steps = []
    for _ in range(epochs):
        samplers = [
            make(
                n,
                rank,
                steps=first_step + len(steps),
                batch_size=batch_size,
                accumulate=accumulate,
                num_replicas=replicas,
                seed=seed,
            )
            for rank in range(replicas)
        ]
        keys = [list(sampler) for sampler in samplers]
        share = batch_size * accumulate  # what a process adds to a step
        for sampler, own in zip(samplers, keys, strict=True):
            assert len(own) == len(sampler)
            assert len(own) > 0
            assert len(own) % share == 0  # an epoch is whole optimizer steps
        steps += [
            sorted(key for own in keys for key in own[start : start + share])
            for start in range(0, len(keys[0]), share)
        ]
    return steps


CASES = list(itertools.product([5, 24, 29], [1, 2, 3], [1, 2]))


@pytest.mark.parametrize(("n", "replicas", "accumulate"), CASES)
def test_processes_share_the_stream_without_gaps(n, replicas, accumulate):
    steps = optimizer_steps(n, 6, replicas=replicas, accumulate=accumulate)
    positions = [position for step in steps for position, _ in step]
    assert positions == list(range(len(steps) * 2 * replicas * accumulate))


@pytest.mark.parametrize(("n", "replicas", "accumulate"), CASES)
def test_the_images_do_not_depend_on_how_a_step_is_shared_out(n, replicas, accumulate):
    shared = optimizer_steps(n, 6, replicas=replicas, accumulate=accumulate)
    alone = optimizer_steps(n, 6, batch_size=2 * replicas * accumulate)
    assert shared == alone[: len(shared)]


@pytest.mark.parametrize(("n", "replicas", "accumulate"), CASES)
def test_every_image_is_seen_equally_often(n, replicas, accumulate):
    steps = optimizer_steps(n, 20, replicas=replicas, accumulate=accumulate)
    images = [index for step in steps for _, index in step]
    assert len(images) >= 2 * n
    for start in range(0, len(images) - n + 1, n):  # every pass is a permutation
        assert sorted(images[start : start + n]) == list(range(n))


def test_passes_differ_from_each_other_and_from_file_order():
    images = [index for step in optimizer_steps(50, 4) for _, index in step]
    passes = [tuple(images[i : i + 50]) for i in range(0, 200, 50)]
    assert len({*passes, tuple(range(50))}) == 5


@pytest.mark.parametrize("first_step", [1, 4, 5, 13])
@pytest.mark.parametrize("replicas", [1, 2])
def test_a_resumed_run_reads_on_where_it_stopped(first_step, replicas):
    whole = optimizer_steps(23, 12, replicas=replicas, accumulate=2)
    tail = optimizer_steps(23, 12, replicas=replicas, accumulate=2, first_step=first_step)
    number = len(whole) - first_step
    assert number > 5
    assert tail[:number] == whole[first_step:]


def test_the_seed_makes_the_order():
    assert optimizer_steps(30, 3, seed=1) == optimizer_steps(30, 3, seed=1)
    assert optimizer_steps(30, 3, seed=1) != optimizer_steps(30, 3, seed=2)


def test_the_order_is_uniformly_random():
    first = [next(iter(make(6, batch_size=6, seed=seed)))[1] for seed in range(1200)]
    counts = np.bincount(first, minlength=6)
    assert ((counts - 200) ** 2 / 200).sum() < 20.5  # χ² with 5 degrees, p = 0.001


def test_the_step_is_asked_for_at_each_epoch():
    done = iter([0, 3])
    stream = TrainStream(range(6), batch_size=2, steps_done=lambda: next(done))
    assert [p for p, _ in stream] == [0, 1, 2, 3, 4, 5]
    assert [p for p, _ in stream] == [6, 7, 8, 9, 10, 11]


@pytest.mark.parametrize(
    ("n", "replicas", "accumulate", "steps"), [(40, 1, 2, 2), (59, 2, 1, 2), (3, 2, 5, 1)]
)
def test_an_epoch_is_the_whole_steps_of_a_pass_and_at_least_one(n, replicas, accumulate, steps):
    assert len(optimizer_steps(n, 1, replicas=replicas, accumulate=accumulate, batch_size=10)) == (
        steps
    )


@pytest.mark.parametrize("replicas", [1, 2, 3, 4])
@pytest.mark.parametrize("n", [4, 7, 8, 1449])
def test_evaluation_takes_every_sample_exactly_once(n, replicas):
    samplers = [EverySampleOnce(range(n), replicas, rank) for rank in range(replicas)]
    shares = [list(sampler) for sampler in samplers]
    assert sorted(itertools.chain(*shares)) == list(range(n))
    assert [len(sampler) for sampler in samplers] == [len(share) for share in shares]
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert all(share == sorted(share) for share in shares)
    assert shares == [list(sampler) for sampler in samplers]  # again, in the same order


def test_lightning_leaves_both_samplers_alone():
    assert isinstance(make(4, batch_size=1), DistributedSampler)
    assert isinstance(EverySampleOnce(range(4)), DistributedSampler)
