import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from deeplab_lit.data.image import DataError
from deeplab_lit.data.split import Split
from deeplab_lit.data.transforms import ScaleRange, TrainTransform
from deeplab_lit.loading.batches import SegmentationDataset, collate


class Memory(Split):
    """Random images of one size."""

    def __init__(self, number=4, size=(80, 100)):
        rng = np.random.default_rng(0)
        self.ids = [f"id{i}" for i in range(number)]
        self.images = rng.integers(0, 256, (number, *size, 3)).astype(np.uint8)
        self.masks = rng.integers(0, 21, (number, *size)).astype(np.uint8)

    def read(self, index):
        return self.images[index], self.masks[index]


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_without_transform_samples_come_as_they_are():
    split = Memory()
    dataset = SegmentationDataset(split)
    assert len(dataset) == 4
    assert same(dataset[2], (split.images[2], split.masks[2], "id2"))


def test_same_seed_and_position_give_the_same_crop():
    dataset = SegmentationDataset(Memory(), TrainTransform(33, ScaleRange(0.5, 1.5)), seed=5)
    first = dataset[7, 2]
    np.random.seed(0)  # noqa: NPY002  the crop must not depend on global generators
    torch.manual_seed(0)
    dataset[8, 1]
    assert same(dataset[7, 2], first)
    assert first[2] == "id2"
    again = SegmentationDataset(Memory(), dataset.transform, seed=5)
    assert same(pickle.loads(pickle.dumps(again))[7, 2], first)


def test_other_positions_and_seeds_give_other_crops():
    transform = TrainTransform(33, ScaleRange(0.5, 1.5))
    crops = [
        SegmentationDataset(Memory(), transform, seed)[position, 2][0].tobytes()
        for seed in range(5)
        for position in range(20)
    ]
    assert len(set(crops)) == len(crops)


@pytest.mark.parametrize("number", [1, 3])
def test_batch_is_uint8_and_channels_last_in_memory(number):
    split = Memory(number, (7, 9))
    dataset = SegmentationDataset(split)
    batch = collate([dataset[i] for i in range(number)])
    assert set(batch) == {"image", "mask", "id"}
    assert batch["image"].shape == (number, 3, 7, 9)
    assert batch["mask"].shape == (number, 7, 9)
    assert batch["image"].dtype == batch["mask"].dtype == torch.uint8
    assert batch["image"].is_contiguous(memory_format=torch.channels_last)
    np.testing.assert_array_equal(batch["image"].permute(0, 2, 3, 1), split.images)
    np.testing.assert_array_equal(batch["mask"], split.masks)
    assert batch["id"] == split.ids


def test_images_of_different_sizes_cannot_share_a_batch():
    one, other = Memory(1, (7, 9)), Memory(1, (9, 7))
    with pytest.raises(DataError, match=r"id0 9×7, id0 7×9.*eval_batch_size 1"):
        collate([(*one.read(0), "id0"), (*other.read(0), "id0")])


UNFINISHED = """
from types import SimpleNamespace
from deeplab_lit.data import Shapes
from deeplab_lit.loading import DataModule

data = DataModule(Shapes(2000), num_workers=1, batch_size=2, crop_size=65)
data.trainer = SimpleNamespace(
    world_size=1, global_rank=0, accumulate_grad_batches=1, global_step=0,
    strategy=SimpleNamespace(broadcast=lambda value: value),
)
data.setup("fit")
batches = iter(data.train_dataloader())
next(batches)
raise RuntimeError("in the middle of an epoch")
"""


def test_a_script_that_fails_in_the_middle_of_an_epoch_ends():
    root = Path(__file__).parents[2]
    script = [sys.executable, "-c", UNFINISHED]
    ended = subprocess.run(script, cwd=root, timeout=300, capture_output=True, text=True)
    assert ended.returncode == 1
    assert "in the middle of an epoch" in ended.stderr
