"""Preprocessing: the conventions of the two families of weights."""

import warnings

import pytest
import torch
from torchvision.transforms.v2 import functional as T

from deeplab_lit.network.preprocess import Preprocess


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def picture(*shape):
    return torch.randint(0, 256, shape or (2, 3, 5, 7), dtype=torch.uint8)


def test_caffe_subtracts_the_authors_mean_color_from_rgb():
    blue, green, red = 104.008, 116.669, 122.675  # as in the prototxt: B, G, R
    images = picture()
    expected = images.float() - torch.tensor([red, green, blue])[:, None, None]
    torch.testing.assert_close(Preprocess("caffe")(images), expected)


def test_torchvision_normalizes_as_torchvision_does():
    images = picture()
    expected = T.normalize(images / 255, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    torch.testing.assert_close(Preprocess("torchvision")(images), expected)


@pytest.mark.parametrize("style", ["caffe", "torchvision"])
def test_uint8_and_float_images_give_the_same_float32(style):
    preprocess, images = Preprocess(style), picture()
    assert preprocess(images).dtype == torch.float32
    assert torch.equal(preprocess(images), preprocess(images.float()))


def test_statistics_travel_with_the_weights_and_are_not_trained():
    caffe, other = Preprocess("caffe"), Preprocess("torchvision")
    assert set(caffe.state_dict()) == {"mean", "std"}
    assert not list(caffe.parameters())
    other.load_state_dict(caffe.state_dict())
    images = picture()
    assert torch.equal(other(images), caffe(images))


def test_float_images_in_0_to_1_are_warned_of():
    with pytest.warns(UserWarning, match="no value above 1.*0…255"):
        Preprocess("caffe")(torch.rand(1, 3, 4, 4))


@pytest.mark.parametrize("images", [picture().float() + 2, torch.zeros(1, 3, 4, 4).byte()])
def test_right_images_are_not_warned_of(images):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Preprocess("caffe")(images)


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8), (1, 8, 8, 3), (1, 4, 8, 8)], ids=str)
def test_another_shape_is_refused_by_name(shape):
    with pytest.raises(ValueError, match=r"RGB images \(B,3,H,W\)") as error:
        Preprocess("caffe")(picture(*shape))
    assert str(shape) in str(error.value)


def test_an_unknown_style_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="caffe, torchvision, got 'bgr'"):
        Preprocess("bgr")
