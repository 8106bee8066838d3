import pickle

import numpy as np
import pytest
import torch

from deeplab_lit.data.dataset import INVALID, FileSplit, Pair, SegmentationDataset, Split, collate
from deeplab_lit.data.image import DataError
from deeplab_lit.data.transforms import ScaleRange, TrainTransform


class Memory(Split):
    """Random images of one size."""

    def __init__(self, number=4, size=(80, 100)):
        rng = np.random.default_rng(0)
        self.ids = [f"id{i}" for i in range(number)]
        self.images = rng.integers(0, 256, (number, *size, 3)).astype(np.uint8)
        self.masks = rng.integers(0, 21, (number, *size)).astype(np.uint8)

    def read(self, index):
        return self.images[index], self.masks[index]


@pytest.fixture
def pair(tmp_path, write_image):
    path = tmp_path / "one.png"
    write_image(path)
    return Pair("one", path, tmp_path / "one_mask.png")


def same(one, other):
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_file_split_reads_image_and_mask(pair, write_image, write_mask):
    pixels, values = write_image(pair.image, 3), write_mask(pair.mask, np.full((24, 32), 2))
    split = FileSplit([pair], 3)
    assert split.ids == ["one"]
    assert same(split.read(0), (pixels, values))


def test_mask_of_another_size_is_refused_with_both_sizes(pair, write_mask):
    write_mask(pair.mask, np.zeros((32, 24)))
    with pytest.raises(DataError, match=r"one_mask\.png: mask of 24×32 .* image of 32×24"):
        FileSplit([pair], 3).read(0)


@pytest.mark.parametrize(("bad", "classes"), [(3, 3), (200, 3), (254, 3), (254, 254), (21, 21)])
def test_bad_value_is_named(pair, write_mask, bad, classes):
    values = np.zeros((24, 32))
    values[3, 4], values[0, 0] = bad, 255
    write_mask(pair.mask, values)
    with pytest.raises(DataError, match=rf"one_mask\.png: mask value {bad}, .* {classes} classes"):
        FileSplit([pair], classes).read(0)


@pytest.mark.parametrize("classes", [1, 3, 254])
def test_all_classes_and_void_are_allowed(pair, write_mask, classes):
    values = np.resize([*range(classes), 255], (24, 32))
    write_mask(pair.mask, values)
    np.testing.assert_array_equal(FileSplit([pair], classes).read(0)[1], values)


def test_mask_of_void_only_is_allowed(pair, write_mask):
    write_mask(pair.mask, np.full((24, 32), 255))
    assert (FileSplit([pair], 2).read(0)[1] == 255).all()


def test_label_map_is_applied_and_bad_raw_values_are_named(pair, write_mask):
    label_map = np.full(256, 254, np.uint8)
    label_map[[7, 9, 30, 255]] = 0, 1, 255, 255
    values = np.resize([7, 9, 30, 255], (24, 32))
    write_mask(pair.mask, values)
    mask = FileSplit([pair], 2, label_map).read(0)[1]
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask, np.resize([0, 1, 255, 255], (24, 32)))
    values[5, 5], values[6, 6] = 0, 1  # fine as classes, but not in the files of this data set
    write_mask(pair.mask, values)
    with pytest.raises(DataError, match=r"mask value 0, 1,"):
        FileSplit([pair], 2, label_map).read(0)


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


@pytest.mark.parametrize(
    ("values", "expected"),
    [(None, {0: 0, 1: 1, 2: 2}), ([255, 0, 1, 2], {0: 1, 1: 2, 2: 3}), ([2, 2, 0], {0: 2, 2: 0})],
    ids=["the indices", "void first", "two values and a class without"],
)
def test_a_split_knows_which_value_of_its_files_a_class_has(values, expected):
    label_map = None if values is None else np.full(256, INVALID, np.uint8)
    if values is not None:
        label_map[: len(values)] = values
    assert FileSplit([], 3, label_map).label_values(3) == expected
