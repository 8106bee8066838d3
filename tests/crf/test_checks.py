import numpy as np
import pytest
import torch

from deeplab_lit.crf import CRFError
from deeplab_lit.crf.checks import check_image, check_probabilities

IMAGE = torch.zeros(4, 6, 3, dtype=torch.uint8)
PROBABILITIES = torch.full((5, 4, 6), 0.2)


def test_a_raw_image_and_probabilities_pass():
    check_image(IMAGE)
    check_probabilities(PROBABILITIES, IMAGE)
    check_probabilities(PROBABILITIES[None].double(), IMAGE[None])


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (IMAGE.float(), "uint8"),
        (IMAGE.permute(2, 0, 1), "3"),
        (IMAGE[..., 0], "3"),
    ],
)
def test_another_image_is_refused(image, words):
    with pytest.raises(CRFError, match=words):
        check_image(image)


@pytest.mark.parametrize(
    "probabilities",
    [
        torch.randn(5, 4, 6),  # logits
        PROBABILITIES * 2,
        PROBABILITIES.mT.contiguous(),  # H and W swapped
        PROBABILITIES.where(PROBABILITIES < 0, torch.nan),
        torch.ones(5, 4, 6, dtype=torch.int64),
        torch.from_numpy(np.zeros((0, 4, 6), np.float32)),
    ],
)
def test_what_are_no_probabilities_is_refused(probabilities):
    with pytest.raises(CRFError, match="probabilities"):
        check_probabilities(probabilities, IMAGE)
