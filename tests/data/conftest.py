"""Small data sets in their official layouts, and the real ones where they are."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from deeplab_lit.data.palette import voc_colour

REAL = Path(__file__).parents[2].parent / "shared/data"
SIZE = (24, 32)  # of the images written here, height × width
TRAIN, VAL, SBD = ("2007_1", "2007_2", "2008_3"), ("2007_4", "2008_5"), ("2009_6", "2010_7")
LABEL_IDS = [*range(34), 255]  # every value of an official Cityscapes labelIds file


def _random(high, shape, seed):
    return np.random.default_rng(seed).integers(0, high, shape).astype(np.uint8)


def _write_image(path, seed=0, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = _random(256, (*size, 3), seed)
    Image.fromarray(pixels).save(path)
    return pixels


def _write_mask(path, values=None, palette=None, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = _random(2, SIZE, seed) if values is None else np.asarray(values, np.uint8)
    image = Image.fromarray(values)
    if palette is not None:
        image.putpalette([channel for colour in palette for channel in colour])
    image.save(path)
    return values


def _write_list(path, ids):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{id}\n" for id in ids))


@pytest.fixture
def write_image():
    """(path, seed, size) → pixels: random colours in a new file."""
    return _write_image


@pytest.fixture
def write_mask():
    """(path, values, palette, seed) → values: a mask file, grey or with a palette."""
    return _write_mask


@pytest.fixture
def write_list():
    """(path, ids): a list file, one id a line."""
    return _write_list


@pytest.fixture
def voc_root(tmp_path):
    """VOCdevkit/VOC2012 with 3 train and 2 val images, and 2 images without VOC masks."""
    root = tmp_path / "VOCdevkit/VOC2012"
    palette = [voc_colour(i) for i in range(256)]
    for seed, id in enumerate(TRAIN + VAL + SBD):
        _write_image(root / f"JPEGImages/{id}.jpg", seed)
    for seed, id in enumerate(TRAIN + VAL):
        values = _random(21, SIZE, seed)
        values[0] = 255
        _write_mask(root / f"SegmentationClass/{id}.png", values, palette)
    for name, ids in (("train", TRAIN), ("val", VAL), ("trainval", TRAIN + VAL)):
        _write_list(root / f"ImageSets/Segmentation/{name}.txt", ids)
    return root


@pytest.fixture
def voc2010_root(tmp_path):
    """VOCdevkit/VOC2010 with masks of whole scenes and of parts, in 2 train and 1 val images."""
    root = tmp_path / "VOCdevkit/VOC2010"
    for seed, id in enumerate((*TRAIN[:2], VAL[0])):
        _write_image(root / f"JPEGImages/{id}.jpg", seed)
    for masks, lists, classes in (
        ("SegmentationClassContext", "SegmentationContext", 60),
        ("SegmentationPersonPart", "SegmentationPersonPart", 7),
    ):
        for seed, id in enumerate((*TRAIN[:2], VAL[0])):
            values = _random(classes, SIZE, seed)
            values[0], values[1] = 255, classes - 1
            _write_mask(root / masks / f"{id}.png", values)
        _write_list(root / f"ImageSets/{lists}/train.txt", TRAIN[:2])
        _write_list(root / f"ImageSets/{lists}/val.txt", VAL[:1])
    return root


@pytest.fixture
def sbd_root(tmp_path):
    """SBD's release: of a VOC train image, a VOC val image, and the 2 images of its own."""
    root = tmp_path / "benchmark_RELEASE/dataset"
    (root / "cls").mkdir(parents=True)
    for seed, id in enumerate((TRAIN[0], VAL[0], *SBD)):
        _write_image(root / f"img/{id}.jpg", seed)
        present = np.array([[1], [20]], np.uint8)
        boundaries = np.empty((20, 1), object)
        boundaries[:] = [[np.zeros(SIZE, bool)] for _ in range(20)]
        segmentation = np.full(SIZE, seed, np.uint8)
        struct = {
            "Boundaries": boundaries,
            "Segmentation": segmentation,
            "CategoriesPresent": present,
        }
        savemat(root / f"cls/{id}.mat", {"GTcls": struct}, do_compression=True)
    return root


@pytest.fixture
def city_root(tmp_path):
    """Cityscapes with 3 train frames of two cities and 1 val frame; every label id occurs."""
    root = tmp_path / "cityscapes"
    frames = {
        "train": ["zurich_000000_000019", "aachen_000001_000019", "aachen_000000_000019"],
        "val": ["frankfurt_000000_000294"],
    }
    values = np.resize(LABEL_IDS, SIZE)
    for split, ids in frames.items():
        for seed, id in enumerate(ids):
            folder = f"{split}/{id.split('_')[0]}"
            _write_image(root / f"leftImg8bit/{folder}/{id}_leftImg8bit.png", seed)
            _write_mask(root / f"gtFine/{folder}/{id}_gtFine_labelIds.png", values)
            _write_mask(root / f"gtFine/{folder}/{id}_gtFine_instanceIds.png", values)
    return root


@pytest.fixture
def folder_root(tmp_path):
    """A folder of 5 train and 3 val images with grey masks of the classes sky, road and car."""
    root = tmp_path / "mine"
    for split, number in (("train", 5), ("val", 3)):
        for i in range(number):
            _write_image(root / f"images/{split}/{i}.png", i)
            _write_mask(root / f"labels/{split}/{i}.png", _random(3, SIZE, i))
    (root / "classes.txt").write_text("sky\nroad\ncar\n")
    return root


@pytest.fixture
def real():
    """Folder name → folder of the real data set; skips the test where it is absent."""

    def find(name):
        if not (REAL / name).is_dir():
            pytest.skip(f"the real data is not here: {name}")
        return str(REAL / name)

    return find
