import math
import warnings

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from PIL import Image

from deeplab_lit.data import Folder
from deeplab_lit.loading import DataModule
from deeplab_lit.scoring.metric import Scores, SegmentationScores
from deeplab_lit.training.divergence import (
    Stuck,
    TrainingDiverged,
    all_finite,
    check_collapse,
    entropy,
    swallowing,
    watch,
)

CLASSES = ["sky", "tree", "bird"]
# Of trainings of 120 steps, those that the module names: steps between two validations, true pixels
# of each class; and at each validation the percentage of the other classes' pixels that the first
# one swallows, and the loss.
RECORDED = {
    "rare": (
        4,
        (194256, 2352),
        """
        100|0.187 100|0.071 100|0.0927 100|0.0998 100|0.0941 100|0.0702 97.5|0.0373 52.8|0.0257
        34.4|0.03 31|0.0342 30.8|0.035 33.9|0.0355 37.8|0.0346 40|0.0353 42.2|0.0347 45.2|0.0345
        43.6|0.035 45.6|0.0337 42.3|0.0352 40|0.0353 40.8|0.0341 42.1|0.0326 42|0.0325
        43.8|0.0322 45.5|0.0318 44.7|0.0319 45.1|0.032 46.2|0.0322 44|0.0328 44.7|0.0326
        """,
    ),
    "eight images": (
        4,
        (14556, 804, 1024),
        """
        100|0.586 63.4|1.09 64.7|1.59 10.6|0.41 13.6|0.341 13|0.44 16.4|0.481 24.9|0.377
        35.7|0.322 31.5|0.318 28.3|0.367 30.1|0.377 29.8|0.37 34.2|0.379 38.7|0.387 37.7|0.357
        34.8|0.332 31.7|0.326 30.6|0.339 32.5|0.371 36.3|0.401 37.2|0.419 36.3|0.417 35.6|0.409
        35.2|0.41 34.7|0.411 34.7|0.406 34.2|0.4 34.1|0.394 34.1|0.393
        """,
    ),
    "one image": (
        4,
        (3840, 256),
        """
        100|0.387 100|0.277 100|0.275 100|0.258 100|0.214 100|0.186 100|0.169 100|0.152
        100|0.149 100|0.157 100|0.161 100|0.156 100|0.146 100|0.133 98.4|0.125 98|0.123
        97.7|0.122 97.3|0.12 97.7|0.121 96.9|0.12 96.5|0.118 96.5|0.118 96.5|0.118 95.7|0.117
        96.1|0.118 95.7|0.117 95.3|0.117 95.7|0.118 95.7|0.117 96.5|0.119
        """,
    ),
    "98 % background": (
        4,
        (48288, 432, 432),
        """
        100|0.196 100|0.112 100|0.142 100|0.153 100|0.139 100|0.121 100|0.105 100|0.111
        100|0.152 100|0.208 99|0.235 98.8|0.202 99.9|0.141 100|0.103 100|0.0888 100|0.0832
        100|0.0806 100|0.0792 99.9|0.0788 99.9|0.0788 99.9|0.0789 99.7|0.079 99.9|0.0797
        99.7|0.08 99.7|0.0808 99.7|0.0813 99.7|0.0812 98.6|0.0806 98.6|0.0806 98.4|0.0805
        """,
    ),
    "98 % background, slowly": (
        4,
        (48288, 432, 432),
        """
        100|0.519 100|0.157 100|0.107 100|0.118 100|0.13 100|0.137 100|0.141 100|0.141 100|0.139
        100|0.137 100|0.133 100|0.128 100|0.124 100|0.119 100|0.116 100|0.112 100|0.109
        100|0.107 100|0.105 100|0.104 100|0.104 100|0.103 100|0.103 100|0.103 100|0.103
        100|0.102 100|0.102 100|0.102 100|0.102 100|0.102
        """,
    ),
    "rare, pseudo-labels": (
        8,
        (194256, 2352),
        """
        100|0.11 100|0.22 100|0.292 100|0.364 100|0.441 100|0.486 100|0.492 100|0.499 100|0.508
        100|0.528 100|0.541 100|0.552 100|0.553 100|0.537 100|0.54
        """,
    ),
    "half, pseudo-labels at a low rate": (
        8,
        (17212, 5188, 10368),
        """
        100|2.93 100|5.69 100|7.5 100|8.56 100|9.19 100|9.59 100|9.74 100|9.75 100|9.75 100|9.71
        100|9.83 100|9.76 100|9.76 100|9.81 100|9.8
        """,
    ),
    "a rate 100 times too high": (
        8,
        (17212, 5188, 10368),
        """
        68.6|32000 55.9|8950 50.8|760 72.2|3.13 100|1.02 100|1.04 100|1.73 100|1.03 100|1.04
        100|1.04 100|1 100|1.04 100|1.02 100|1.01 100|1.01
        """,
    ),
}


def scores(truth, predicted, loss=9.0):
    metric = SegmentationScores(len(CLASSES))
    metric.update(torch.tensor([predicted]), torch.tensor([truth], dtype=torch.uint8))
    return Scores(metric.compute().confusion, loss)


def recorded(name):
    """Step and scores of each validation."""
    every, pixels, validations = RECORDED[name]
    for number, words in enumerate(validations.split(), start=1):
        share, loss = map(float, words.split("|"))
        confusion = torch.diag(torch.tensor(pixels, dtype=torch.double))
        taken = confusion.diag()[1:] * share / 100
        confusion[1:, 0] += taken
        confusion.diagonal()[1:] -= taken
        yield every * number, Scores(confusion, loss)


def replay(name):
    """A recorded training before the guard: the step of its end, or None; and the warnings."""
    row = Stuck()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for step, found in recorded(name):
            row = watch(row, found, 0.99, step, 120)
            try:
                check_collapse(row, found, CLASSES, step, 120)
            except TrainingDiverged:
                return step, told
    return None, told


@pytest.mark.parametrize("name", ["rare", "eight images", "one image", "98 % background"])
def test_a_training_that_finds_its_classes_late_goes_on_without_a_word(name):
    _, first = next(recorded(name))
    assert swallowing(first.confusion)[1] > 0.99
    assert replay(name) == (None, [])


@pytest.mark.parametrize("name", ["98 % background, slowly", "a rate 100 times too high"])
def test_a_training_that_may_still_find_something_is_warned_of_and_goes_on(name):
    end, told = replay(name)
    assert end is None
    assert "goes on for now" in str(told[0].message)
    assert "has found nothing" in str(told[-1].message)


@pytest.mark.parametrize("name", ["rare, pseudo-labels", "half, pseudo-labels at a low rate"])
def test_pseudo_labels_of_one_class_are_warned_of_and_end_a_training_past_its_half(name):
    end, (warning,) = replay(name)
    assert end == 64
    words = "at step 40 of 120 100.00 % of the other classes' pixels are taken for sky"
    assert words in str(warning.message)


def test_the_class_that_swallows_the_others_is_found_whatever_its_own_share():
    assert swallowing(scores([0, 1, 1, 2], [1, 1, 1, 1]).confusion) == (1, 1.0)
    assert swallowing(scores([0, 0, 0, 1], [0, 0, 0, 1]).confusion)[1] == 0
    index, share = swallowing(scores([0, 0, 0, 0, 1, 255], [0, 0, 2, 2, 1, 0]).confusion)
    assert (index, share) == (2, pytest.approx(2 / 5))
    assert swallowing(scores([0, 0], [0, 0]).confusion)[1] == 0  # there is no other


def test_the_entropy_is_the_loss_of_who_knows_the_frequencies_alone():
    confusion = scores([0, 0, 0, 1], [2, 2, 2, 2]).confusion
    guesses = np.linspace(0.01, 0.99, 99)
    losses = -(0.75 * np.log(guesses) + 0.25 * np.log(1 - guesses))
    assert entropy(confusion) == pytest.approx(losses.min())


def collapsed(validations, loss=9.0, share=0.99, steps=100):
    """The last row after so many validations, every 10 steps, that find nothing but sky."""
    row, found = Stuck(), scores([0, 1, 1, 2], [0, 0, 0, 0], loss)
    for step in range(10, 10 * validations + 1, 10):
        row = watch(row, found, share, step, steps)
    return row, found, 10 * validations


def test_a_collapse_says_what_was_found_and_what_helps():
    row, found, step = collapsed(5)
    with pytest.raises(TrainingDiverged) as raised:
        check_collapse(row, found, CLASSES, step, 100)
    for words in ("step 50 of 100 100.00 %", "sky (which has 25.00 %", "in 5 vali", "--model.lr"):
        assert words in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"validations": 4}, "not half of the training is done"),
        ({"loss": 1.5}, "the loss is near the entropy, 1.04: the network only guesses"),
        ({"loss": 2.1}, "it is near log 3, 1.1: the network takes all classes for as probable"),
        ({"loss": 0.9}, "the loss is below the entropy: the network has learned something"),
        ({"loss": math.nan}, "nothing is known about the loss"),
        ({"share": 1.0}, "nobody wants to be stopped"),
        ({"validations": 10}, "it is over"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_training_is_not_ended_while_there_is_hope(changes, why):
    row, found, step = collapsed(**{"validations": 5, **changes})
    check_collapse(row, found, CLASSES, step, 100)


def ends(losses, steps, every, **options):
    """Whether a training with these validations, that find nothing but background, is ended."""
    row, confusion = Stuck(), torch.tensor([[980, 0, 0], [20, 0, 0], [0, 0, 0]])
    for step, loss in enumerate(losses, start=1):
        row = watch(row, Scores(confusion, loss), 0.99, step * every, steps)
        try:
            check_collapse(row, Scores(confusion, loss), CLASSES, step * every, steps, **options)
        except TrainingDiverged:
            return True
    return False


@pytest.mark.filterwarnings("ignore")
def test_ten_steps_each_of_them_validated_are_never_too_many():
    assert not ends([9.0] * 10, steps=10, every=1)
    assert ends([9.0] * 10, steps=100, every=10)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("losses", "plain", "otherwise"),
    [
        ([0.1, 0.3, 0.5, 0.6, 0.7, 0.7, 0.7, 0.7], True, False),  # log 3 is 1.1, the entropy 0.1
        ([0.37] * 8, False, False),  # as training crops with 30 % foreground teach it
        ([1.1] * 8, False, False),
        ([1, 2, 3, 4, 5, 5, 5, 5], True, True),
    ],
)
def test_who_balances_classes_may_unlearn_their_frequencies(losses, plain, otherwise):
    assert ends(losses, steps=100, every=10) == plain
    assert ends(losses, steps=100, every=10, guesses_frequencies=False) == otherwise


def test_a_loss_that_falls_and_a_class_that_is_found_begin_the_row_anew():
    row, flat, _ = collapsed(3)
    assert row == Stuck(3, 10, 9.0)
    assert watch(row, Scores(flat.confusion, 8.0), 0.99, 40, 100) == Stuck(1, 40, 8.0)
    assert watch(row, Scores(flat.confusion, 8.9), 0.99, 40, 100) == Stuck(4, 10, 9.0, warned=40)
    assert watch(row, scores([0, 1], [0, 1]), 0.99, 40, 100) == Stuck()


def test_weights_that_are_no_numbers_are_seen():
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.BatchNorm2d(1))
    assert all_finite(net)
    net[1].running_mean[0] = math.nan
    assert not all_finite(net)


@pytest.fixture
def train(tmp_path, make_module, make_trainer):
    """Trains for 40 steps, validated every 4, on six noisy images with a bright square in each."""
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for kind in ("images", "labels", "pseudo"):
            (tmp_path / kind / split).mkdir(parents=True)
        for i in range(6):
            image = rng.integers(60, 140, (40, 40, 3)).astype(np.uint8)
            mask = np.zeros((40, 40), np.uint8)
            y, x = rng.integers(0, 24, 2)
            image[y : y + 16, x : x + 16], mask[y : y + 16, x : x + 16] = 240, 1
            for kind, pixels in (("images", image), ("labels", mask), ("pseudo", 0 * mask)):
                Image.fromarray(pixels).save(tmp_path / f"{kind}/{split}/{i}.png")
    (tmp_path / "classes.txt").write_text("a\nb")

    def run(pseudo=False, checkpoint=None, **options):
        masks = str(tmp_path / "pseudo/train") if pseudo else None
        loader = {"batch_size": 4, "crop_size": 33, "scales": (1.0,), "num_workers": 0}
        data = DataModule(Folder(str(tmp_path), mask_dir=masks), **loader)
        small = {"backbone": "resnet6_half", "collapse_share": 0.99, "lr": 0.05}
        module = make_module(data.classes, **small, head_lr_mult=0.2)
        every = {"max_steps": 40, "val_check_interval": 4, "check_val_every_n_epoch": None}
        trainer = make_trainer(**{**every, **options})
        trainer.fit(module, data, ckpt_path=checkpoint, weights_only=bool(checkpoint))
        return trainer, module

    return run


def test_six_images_are_learned(train):
    trainer, module = train()
    assert trainer.global_step == 40
    assert module.scores.miou > 0.6


COLLAPSED = r"step (\d+) of 40 .* in \d+ validations in a row; .* has collapsed"


def test_pseudo_labels_of_one_class_end_a_training_after_a_warning(train):
    with (
        pytest.warns(UserWarning, match="goes on for now"),
        pytest.raises(TrainingDiverged, match=COLLAPSED),
    ):
        train(pseudo=True)


@pytest.mark.filterwarnings("ignore")
def test_a_training_that_goes_on_ends_where_it_would_have_without_the_break(train, tmp_path):
    with pytest.raises(TrainingDiverged) as whole:
        train(pseudo=True)

    class Break(Callback):
        def on_train_batch_end(self, trainer, module, *_):
            if trainer.global_step == 18:  # after the validation at step 16
                trainer.save_checkpoint(tmp_path / "18.ckpt")
                trainer.should_stop, self.stuck = True, module.stuck

    train(pseudo=True, callbacks=[stop := Break()])
    kept = torch.load(tmp_path / "18.ckpt", weights_only=True)["stuck"]
    assert kept == stop.stuck._asdict()
    assert kept["validations"] > 1
    with pytest.raises(TrainingDiverged) as resumed:
        train(pseudo=True, checkpoint=tmp_path / "18.ckpt")
    assert str(resumed.value) == str(whole.value)
