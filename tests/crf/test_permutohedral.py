"""The lattice: what filtering must do, and how near it is to the Gaussian that it stands for."""

import numpy as np
import pytest
import torch
from crf_inputs import random_image, scores_like_a_network

from deeplab_lit.crf.mean_field import mean_field
from deeplab_lit.crf.permutohedral import Lattice, elevate, enclosing_simplex, features, key_layout

SIZE, XY, RGB = (12, 12), 4.0, 30.0
IMAGE = torch.from_numpy(random_image(SIZE))[None]


def simplices(rgb_std=RGB):
    return enclosing_simplex(elevate(features(IMAGE, XY, rgb_std)), key_layout(SIZE, XY, rgb_std))


def lattice(rgb_std=RGB, **options):
    points = elevate(features(IMAGE, XY, rgb_std))
    return Lattice(points, key_layout(SIZE, XY, rgb_std), **options)


def exact_kernel(rgb_std=RGB):
    """(N,N) Gaussian kernel, normalized symmetrically."""
    points = features(IMAGE, XY, rgb_std).double().T
    kernel = torch.exp(-(torch.cdist(points, points) ** 2) / 2)
    norm = kernel.sum(1).rsqrt()
    return norm[:, None] * kernel * norm


def test_points_are_elevated_onto_the_hyperplane_isometrically():
    points = features(IMAGE, XY, RGB)
    elevated = elevate(points)
    assert elevated.sum(0).abs().max() < 1e-3
    scale = 6 * (2 / 3) ** 0.5  # the blur's standard deviation on the lattice
    distances = [torch.cdist(x.double().T, x.double().T) for x in (elevated, points)]
    torch.testing.assert_close(distances[0], scale * distances[1], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("rgb_std", [None, RGB, 3.0])
def test_a_pixel_lies_within_its_simplex(rgb_std):
    keys, weights = simplices(rgb_std)
    assert weights.min() > -1e-4
    torch.testing.assert_close(weights.sum(0), torch.ones(144), rtol=0, atol=1e-4)
    assert len(set(map(tuple, keys.T.sort(1).values.tolist()))) > 1
    assert (keys.T.sort(1).values.diff(dim=1) > 0).all()  # corners differ


@pytest.mark.parametrize("rgb_std", [None, RGB, 3.0])
def test_the_weighted_corners_are_the_pixel(rgb_std):
    points = elevate(features(IMAGE, XY, rgb_std))
    layout = key_layout(SIZE, XY, rgb_std)
    keys, weights = enclosing_simplex(points, layout)
    assert keys.min() >= 0
    assert keys.max() < layout.size
    d = len(points) - 1
    remainder, rest = keys // layout.phase, keys % layout.phase
    middle = torch.zeros_like(points)
    for i in reversed(range(d)):
        q, rest = rest // layout.stride[i] + layout.low[i], rest % layout.stride[i]
        middle[i] = ((q * (d + 1) + remainder) * weights).sum(0)
    torch.testing.assert_close(middle[:d], points[:d], rtol=0, atol=1e-2)


def test_filtering_is_linear_positive_and_nearly_symmetric():
    kernel = lattice().filter(torch.eye(144))
    # not quite: directions are blurred in turn, and where vertices are missing turns matter
    assert (kernel - kernel.T).abs().mean() < 0.3 * kernel.mean()
    assert kernel.min() >= -1e-6
    assert kernel.diagonal().min() > 0
    values = torch.rand(144, 7)
    torch.testing.assert_close(lattice().filter(values), kernel @ values, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rgb_std", [None, RGB])
def test_near_the_exact_gaussian(rgb_std):
    values = torch.rand(144, 3, generator=torch.Generator().manual_seed(0))
    expected = exact_kernel(rgb_std) @ values.double()
    result = lattice(rgb_std).filter(values)
    assert (result - expected).abs().mean() < 0.05 * expected.mean()


def test_normalized_after_a_constant_stays():
    ones = torch.ones(144, 2)
    kept = lattice(weight=3.0, normalization="after").filter(ones)
    torch.testing.assert_close(kept, 3 * ones)


def test_images_do_not_touch():
    both = torch.cat([IMAGE, torch.from_numpy(random_image(SIZE, seed=1))[None]])
    layout = key_layout(SIZE, XY, RGB)
    one = lattice()
    two = Lattice(elevate(features(both, XY, RGB)), layout, images=2)
    values = torch.rand(144, 3)
    filtered = two.filter(torch.cat([values, torch.zeros(144, 3)]))
    torch.testing.assert_close(filtered[:144], one.filter(values), rtol=0, atol=1e-6)
    assert filtered[144:].abs().max() == 0


def test_neighbors_are_mutual():
    built = lattice()
    missing = built.num_vertices
    for rows in built.neighbors:
        for here, forth, back in rows[:-1].tolist():
            assert forth == missing or rows[forth, 2] == here
            assert back == missing or rows[back, 1] == here
        assert rows[-1].tolist() == [missing] * 3
    assert any((rows[:-1, 1] != missing).any() for rows in built.neighbors)


def test_mean_field_is_near_that_of_the_exact_kernel():
    unary = -torch.from_numpy(scores_like_a_network(3, SIZE)).reshape(3, -1).T.log()

    class Exact:
        def filter(self, values):
            return (2 * exact_kernel().float()) @ values

    expected = mean_field(unary, [Exact()], 5)
    result = mean_field(unary, [lattice(weight=2.0)], 5)
    assert (result - expected).abs().mean() < 0.03


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
