import cv2
import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def root(tmp_path):
    """PASCAL VOC 2012, nine images in either split: image i is blue 10 i, green 100, red 200."""
    voc = tmp_path / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (voc / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for i in range(9):
        image = np.full((90, 70, 3), (10 * i, 100, 200), np.uint8)
        cv2.imwrite(str(voc / f"JPEGImages/{i}.jpg"), image)
        mask = rng.integers(21, size=(90, 70), dtype=np.uint8)
        Image.fromarray(mask).save(voc / f"SegmentationClass/{i}.png")
    ids = "\n".join(map(str, range(9)))
    for split in ("train", "val"):
        (voc / f"ImageSets/Segmentation/{split}.txt").write_text(ids)
    return voc
