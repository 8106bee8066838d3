import threading
import time

import numpy as np
import pytest
import torch

from deeplab_lit.crf import DenseCRF
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.inference import Inference
from deeplab_lit.scoring.evaluation import ScoredNetwork
from deeplab_lit.segment import segmenter
from deeplab_lit.segment.segmenter import Segmenter


@pytest.fixture
def net():
    net = DeepLabV2(3, backbone="resnet10_quarter", atrous_rates=(1, 2), scales=(1.0,)).eval()
    torch.nn.init.normal_(net.head.branches[0].weight, std=0.5)
    net.classes = {"a": (1, 2, 3), "b": (4, 5, 6), "c": (7, 8, 9)}
    return net


@pytest.mark.parametrize("crf", [None, DenseCRF(backend="torch", iterations=2)])
def test_a_mask_is_what_the_parts_give_one_after_the_other(net, crf):
    image = torch.randint(256, (49, 65, 3), dtype=torch.uint8)
    inference = Inference(flip=True)
    with torch.no_grad():
        probabilities = inference(net, image.permute(2, 0, 1)[None])[0].softmax(0)
    if crf is not None:
        probabilities = torch.as_tensor(crf(image.numpy(), probabilities.numpy()))
    found = Segmenter(net, inference, crf)(image)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, probabilities.argmax(0).numpy())


class Vote:
    """A replacement of the CRF: the most probable class of the image, at every pixel."""

    def __call__(self, image, probabilities):
        assert type(image) is type(probabilities) is np.ndarray
        assert image.shape == (*probabilities.shape[1:], 3)
        return probabilities * 0 + probabilities.mean((1, 2))[:, None, None]

    def stays_on(self, device):
        return False

    def settings(self, device):
        return {"name": "vote"}


def test_an_object_of_ones_own_takes_the_crfs_place(net):
    image = torch.randint(256, (33, 49, 3), dtype=torch.uint8)
    with torch.no_grad():
        winner = net(image.permute(2, 0, 1)[None])[0].softmax(0).mean((1, 2)).argmax()
    segment = Segmenter(net, crf=Vote())
    for pixels in (image, image.numpy()):
        assert (segment(pixels) == int(winner)).all()
    assert all((mask == int(winner)).all() for *_, mask in segment.many([("a", image)] * 2))


@pytest.mark.parametrize("backend", [None, "torch", "native"])
def test_many_images_get_the_masks_that_they_get_alone(net, backend):
    crf = backend and DenseCRF(backend=backend, iterations=2, threads=1)
    sizes = [(33, 49), (49, 33), (40, 40), (33, 65), (65, 65), (34, 34)]
    images = [torch.randint(256, (*size, 3), dtype=torch.uint8) for size in sizes]
    one = Segmenter(net, crf=crf)
    done = {number: (image, mask) for number, image, mask in one.many(enumerate(images))}
    assert sorted(done) == [0, 1, 2, 3, 4, 5]
    for number, (image, mask) in done.items():
        assert image is images[number]
        assert mask.dtype == np.uint8
        np.testing.assert_array_equal(mask, one(image))


def test_an_image_that_takes_long_holds_up_no_other(net, monkeypatch):
    """The first is not done before all others have come out."""
    others, slow = threading.Event(), torch.zeros((33, 33, 3), dtype=torch.uint8)

    def refine(self, image, probabilities):
        assert image.any() or others.wait(300)
        return probabilities

    monkeypatch.setattr(DenseCRF, "__call__", refine)
    monkeypatch.setattr(segmenter, "cores", lambda: 2)
    images = [slow, *torch.randint(1, 256, (4, 33, 33, 3), dtype=torch.uint8)]
    order = []
    for number, _, _ in Segmenter(net, crf=DenseCRF(backend="torch")).many(enumerate(images)):
        order.append(number)
        if len(order) == 4:
            others.set()
    assert order[-1] == 0


def test_where_nobody_wants_the_rest_no_further_image_is_begun(net, monkeypatch):
    begun = []

    def refine(self, image, probabilities):
        begun.append(image)
        time.sleep(0.1)
        return probabilities

    monkeypatch.setattr(DenseCRF, "__call__", refine)
    monkeypatch.setattr(segmenter, "cores", lambda: 1)
    images = torch.randint(256, (20, 33, 33, 3), dtype=torch.uint8)
    for _ in Segmenter(net, crf=DenseCRF(backend="torch")).many(enumerate(images)):
        break
    time.sleep(0.5)
    assert len(begun) < 5


def test_it_says_what_an_image_costs(net):
    assert "2 passes" in Segmenter(net, Inference(flip=True)).cost((49, 65))


def test_arrays_are_taken_even_read_only_and_backward(net):
    image = torch.randint(256, (33, 49, 3), dtype=torch.uint8)
    backward = image.numpy()[..., ::-1]
    backward.flags.writeable = False
    segment = Segmenter(net)
    np.testing.assert_array_equal(segment(image.numpy()), segment(image))
    np.testing.assert_array_equal(segment(backward), segment(image.flip(-1)))


def test_the_network_of_a_module_knows_its_classes(net):
    classes = net.classes
    net.classes = {}
    assert Segmenter(ScoredNetwork(net, classes).net).colors == list(classes.values())


@pytest.mark.parametrize("crf", [None, DenseCRF(backend="torch", iterations=2), "native"])
@pytest.mark.parametrize("present", [(0, 2), (0,), (0, 1, 2)])
def test_classes_that_an_image_cannot_hold_get_nothing_before_the_crf(net, crf, present):
    """Their probability is 0, and the others are divided by their sum."""
    crf = DenseCRF(iterations=2, threads=1) if crf == "native" else crf
    image = torch.randint(256, (33, 49, 3), dtype=torch.uint8)
    with torch.no_grad():
        expected = net(image.permute(2, 0, 1)[None])[0].softmax(0)[list(present)]
    expected /= expected.sum(0)
    if crf is not None:
        expected = torch.as_tensor(crf(image.numpy(), expected.numpy()))
    segment = Segmenter(net, crf=crf)
    found = segment.probabilities(image, present)
    assert found.shape == (3, 33, 49)
    assert not found[[c for c in range(3) if c not in present]].any()
    torch.testing.assert_close(found[list(present)], expected, rtol=1e-4, atol=1e-5)
    (_, _, mask), (_, _, kept) = (
        next(iter(segment.many([("a", image)], read, lambda note: {"a": present}[note])))
        for read in (None, lambda note, p: (note, p))
    )
    np.testing.assert_array_equal(mask, found.argmax(0))
    np.testing.assert_array_equal(segment(image, present), mask)
    assert kept[0] == "a"
    torch.testing.assert_close(kept[1], found)
