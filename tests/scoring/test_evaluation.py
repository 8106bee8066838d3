import numpy as np
import pytest
import torch
from PIL import Image

from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.scoring.evaluation import Evaluation, ScoredNetwork
from deeplab_lit.scoring.observer import Observer
from deeplab_lit.scoring.validation import Validation


@pytest.mark.parametrize("scales", [(), (0.0,), (1.0, -0.5)])
def test_evaluation_scales_that_make_no_sense_are_refused(scales):
    with pytest.raises(ValueError, match="scales"):
        Evaluation(scales)


def test_a_cache_without_a_name_is_refused():
    with pytest.raises(ValueError, match=r"--eval\.cache_dir must name a folder"):
        Evaluation(cache_dir="")


@torch.no_grad()
def test_cached_or_not_the_labels_are_those_of_the_network(tmp_path):
    net = DeepLabV2(3, backbone="resnet10_quarter", norm="batch", scales=(1.0,)).eval()
    torch.nn.init.normal_(net.head.branches[0].weight, std=0.5)
    batch = {"image": torch.randint(0, 256, (2, 3, 40, 50), dtype=torch.uint8), "id": ["a", "b"]}
    expected = net(batch["image"])
    assert Evaluation().logits(net, batch).equal(expected)
    cached = Evaluation(cache_dir=str(tmp_path))
    written = cached.logits(net, batch)
    torch.testing.assert_close(written.softmax(1), expected.softmax(1), rtol=2**-10, atol=2e-5)
    torch.nn.init.zeros_(net.head.branches[0].weight)  # nobody asks the network again
    assert cached.logits(net, batch).equal(written)


@pytest.mark.parametrize("size", [None, (32, 64)])
def test_scoring_at_another_size_needs_one(size):
    with pytest.raises(ValueError, match=r"--eval\.score_resized .* --eval\.resize: give it"):
        Evaluation(score_resized=True)
    with pytest.raises(ValueError, match="resize must be"):
        Evaluation(resize=(32, 64), score_resized=True)


@pytest.mark.parametrize("size", [(45, 70), (64, 33), (40, 50)])
def test_a_batch_is_scored_at_the_size_asked_for_as_pil_resizes_it(size):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2, 40, 50, 3)).astype(np.uint8)
    masks = rng.integers(0, 256, (2, 40, 50)).astype(np.uint8)
    batch = {
        "image": torch.from_numpy(images).permute(0, 3, 1, 2),
        "mask": torch.from_numpy(masks),
        "id": ["a", "b"],
    }
    kept = {key: value.clone() for key, value in batch.items() if key != "id"}
    assert Evaluation(resize=size).as_scored(batch) is batch
    found = Evaluation(resize=size, score_resized=True).as_scored(batch)
    assert found["image"].shape == (2, 3, *size)
    assert found["id"] == ["a", "b"]
    for mask, expected in zip(found["mask"], masks, strict=True):
        nearest = Image.fromarray(expected).resize(size[::-1], Image.Resampling.NEAREST)
        np.testing.assert_array_equal(mask, nearest)
    assert all(batch[key].equal(value) for key, value in kept.items())  # nothing is written into it


class Seen(Observer):
    """Keeps what it is shown."""

    def __init__(self):
        self.images = []

    def see(self, image):
        self.images.append(image)


class Sure:
    """A replacement of the CRF that believes the network."""

    def __call__(self, image, probabilities):
        assert image.shape[:2] == probabilities.shape[1:]
        return probabilities

    def stays_on(self, device):
        return False

    def settings(self, device):
        return {}


@pytest.mark.filterwarnings("ignore")
def test_network_mask_crf_and_observers_have_the_size_that_is_scored(
    make_data, make_trainer, tmp_path
):
    torch.manual_seed(0)
    data = make_data(val_size=3)
    net = DeepLabV2(7, backbone="resnet10_quarter", norm="batch", scales=(1.0,)).eval()
    torch.nn.init.normal_(net.head.branches[0].weight, std=0.5)
    results = {}
    for name, scored_there, folder in (
        ("own", False, None), ("there", True, None), ("kept", True, str(tmp_path))
    ):  # fmt: skip
        evaluation = Evaluation(resize=(80, 120), score_resized=scored_there, cache_dir=folder)
        module = ScoredNetwork(net, data.classes, evaluation)
        seen = Seen()
        trainer = make_trainer(callbacks=[Validation([seen], Sure())])
        trainer.validate(module, data, verbose=False)
        results[name] = module.scores.confusion
        size = (80, 120) if scored_there else (161, 161)
        assert int(module.scores.confusion.sum()) == sum(
            int((image.mask != 255).sum()) for image in seen.images
        )
        for image in seen.images:
            shapes = {tuple(x.shape[:2]) for x in (image.image, image.mask, image.labels)}
            assert shapes == {size}
            assert image.refined.equal(image.labels)
    by_hand = torch.zeros(7, 7, dtype=torch.int64)
    with torch.inference_mode():
        for index in range(3):
            image, mask = data.validation().read(index)
            picture = Image.fromarray(image).resize((120, 80), Image.Resampling.BICUBIC)
            labels = net(torch.tensor(np.asarray(picture)).permute(2, 0, 1)[None])[0].argmax(0)
            truth = np.asarray(Image.fromarray(mask).resize((120, 80), Image.Resampling.NEAREST))
            counted = torch.from_numpy(truth != 255)
            pairs = (torch.tensor(truth).long() * 7 + labels)[counted]
            by_hand += pairs.bincount(minlength=49).view(7, 7)
    assert results["there"].sum() == by_hand.sum()
    assert (results["there"] - by_hand).abs().sum() <= 0.002 * by_hand.sum()  # a gray level apart
    assert (results["kept"] - by_hand).abs().sum() <= 0.002 * by_hand.sum()
    assert results["own"].sum() > 2 * by_hand.sum()


def test_records_and_titles_say_where_it_is_scored():
    net = DeepLabV2(3, backbone="resnet10_quarter", scales=(1.0,))
    plain, there = Evaluation(resize=(33, 65)), Evaluation(resize=(33, 65), score_resized=True)
    assert plain.settings(net) == {
        "scales": [1.0],
        "resize": [33, 65],
        "resize_filter": "bicubic",
    }
    assert there.settings(net) == plain.settings(net) | {"score_resized": True}
    assert Evaluation().title(net) == "scales [1.0]"
    assert plain.title(net) == "scales [1.0], seen at 65×33"
    assert there.title(net) == "scales [1.0], seen and scored at 65×33"
