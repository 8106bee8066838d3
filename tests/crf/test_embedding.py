import numpy as np
import torch

from deeplab_lit.crf.embedding import elevate, features


def test_features_are_positions_and_colors_in_units_of_their_deviations():
    image = torch.randint(256, (1, 3, 5, 3), dtype=torch.uint8)
    found = features(image, 4.0, 8.0).reshape(5, -1).T.numpy()
    y, x = np.mgrid[:3, :5]
    expected = [x.ravel() / 4, y.ravel() / 4, *(image[0].reshape(-1, 3).T.numpy() / 8)]
    np.testing.assert_allclose(found, np.stack(expected, 1), rtol=1e-6)


def test_elevating_keeps_distances_up_to_one_factor_and_stays_in_the_plane():
    """The lattice lives where coordinates sum to 0; the embedding must not bend the space."""
    torch.manual_seed(0)
    points = torch.rand(20, 5, dtype=torch.float32) * 10
    high = elevate(points.T.contiguous()).T.double()
    assert high.shape == (20, 6)
    torch.testing.assert_close(high.sum(1), torch.zeros(20).double(), atol=1e-4, rtol=0)
    low_distances, high_distances = torch.pdist(points.double()), torch.pdist(high)
    ratio = high_distances / low_distances
    torch.testing.assert_close(ratio, ratio.mean().expand_as(ratio), rtol=1e-4, atol=0)
