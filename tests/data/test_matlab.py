import os

import numpy as np
import pytest
from scipy.io import savemat

from deeplab_lit.data.image import DataError, read_mask

LABELS = np.zeros((40, 50), np.uint8)
LABELS[5:20, 8:30], LABELS[22:, 10:] = 3, 7


@pytest.fixture
def mat(tmp_path):
    path = tmp_path / "2008_1.mat"
    savemat(path, {"GTcls": {"Segmentation": LABELS}}, do_compression=True)
    return path


def test_a_matlab_mask_is_read_compressed_or_not(mat, tmp_path):
    plain = tmp_path / "plain.mat"
    savemat(plain, {"GTcls": {"Segmentation": LABELS}})
    for path in (mat, plain):
        np.testing.assert_array_equal(read_mask(path), LABELS)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_flipped_bit_in_compressed_content_is_refused_or_changes_nothing(mat):
    """In a process of its own, which SciPy alone ends with a signal at some of them."""
    content = mat.read_bytes()
    child = os.fork()
    if child == 0:
        ends = 1
        try:
            for place in range(128, len(content)):
                damaged = bytearray(content)
                damaged[place] ^= 1 << place % 8
                mat.write_bytes(damaged)
                try:
                    assert np.array_equal(read_mask(mat), LABELS)
                except DataError:
                    continue
            ends = 0
        finally:
            os._exit(ends)
    assert os.waitpid(child, 0)[1] == 0
