import numpy as np
import pytest
import torch

from deeplab_lit.benchmark.pipelines import PIPELINES, decoded
from deeplab_lit.data.voc import VOC


@pytest.mark.parametrize("name", PIPELINES)
def test_a_peer_makes_samples_of_the_same_size_scaled_padded_and_cropped(name, root):
    if name == "albumentations":
        pytest.importorskip("albumentations", reason="albumentations is not installed")
    samples = list(PIPELINES[name](VOC(str(root)).split("train"), 65, 0))
    assert [id for *_, id in samples] == [str(i) for i in range(9)]
    paddings = 0
    for i, (image, mask, _) in enumerate(samples):
        assert tuple(image.shape) == (3, 65, 65)
        assert tuple(mask.shape) == (65, 65)
        is_float = name == "OpenCV, float32"
        assert image.dtype == (np.float32 if is_float else image.dtype)
        assert image.dtype in (np.float32, np.uint8, torch.uint8)
        mask = np.asarray(mask)
        assert set(np.unique(mask)) <= {*range(21), 255}
        paddings += (mask == 255).any()
        y, x = np.argwhere(mask != 255)[0]
        blue = float(image[0 if "OpenCV" in name else 2, y, x]) + 104.008 * is_float
        assert abs(blue - 10 * i) < 4
    assert 0 < paddings < 9  # images scaled to less than the crop are padded, the others are not


def test_decoding_alone_gives_what_the_files_hold(root):
    samples = list(decoded(VOC(str(root)).split("train"), 65, 0))
    assert [id for *_, id in samples] == [str(i) for i in range(9)]
    assert all(image.shape == (90, 70, 3) and mask.shape == (90, 70) for image, mask, _ in samples)
