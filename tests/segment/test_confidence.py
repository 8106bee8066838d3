"""Thresholds against values worked out by hand, and against slow references in plain NumPy."""

import numpy as np
import pytest
import torch

from deeplab_lit.segment.confidence import (
    ConfidenceError,
    Rule,
    counts_of,
    most_probable,
    probability,
    rule_of,
    steps,
)


def counts(*classes):
    """Counts of the given probabilities of each class."""
    labels = np.repeat(np.arange(len(classes)), [len(each) for each in classes])
    return counts_of(labels.astype(np.uint8), steps(np.concatenate(classes)), len(classes))


def of_one(rule, *probabilities):
    return rule.thresholds(counts(np.array(probabilities)))[0]


@pytest.mark.parametrize(
    ("probabilities", "threshold"),
    [
        ((0.3,), 0.3),
        ((0.3, 0.8), 0.8),
        ((0.3, 0.5, 0.95), 0.9),
        ((0.3, 0.5, 0.6, 0.95), 0.6),
        ((0.91, 0.92, 0.95, 0.97, 0.99), 0.9),
        ((), 0.0),
    ],
)
def test_bdls_threshold_is_the_middle_one_of_a_class_and_at_most_09(probabilities, threshold):
    """The middle is x[round(n/2)], half to even: of three the last, not the median."""
    assert of_one(rule_of("bdl"), *probabilities) == threshold


def test_cbsts_threshold_is_reached_by_the_surest_portion_of_a_class():
    ten = (0.95, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1)
    assert of_one(rule_of("cbst:0.2"), *ten) == 0.9
    assert of_one(rule_of("cbst:0.05"), *ten) == 1  # ⌊0.5⌋ pixels
    assert of_one(rule_of("cbst:1"), *ten) == 0.1
    assert of_one(rule_of("cbst")) == 1


def test_cbsts_label_is_the_class_that_is_the_highest_multiple_of_its_threshold():
    p = torch.tensor([[0.5, 0.5], [0.4, 0.42], [0.1, 0.08]]).view(3, 1, 2)
    thresholds = [0.9, 0.5, 0.6]
    assert rule_of("cbst").labels(p, thresholds).tolist() == [[255, 255]]  # 0.8 and 0.84 of class 1
    thresholds[1] = 0.41
    assert rule_of("cbst").labels(p, thresholds).tolist() == [[255, 1]]
    thresholds[1] = 0.4
    assert rule_of("cbst").labels(p, thresholds).tolist() == [[1, 1]]


@pytest.mark.parametrize("name", ["bdl", "cbst:0.5", "cbst:1"])
@pytest.mark.parametrize("below_one", [0.0, 1.2e-7, 2.4e-7, 7.2e-7, 0.123456789])
def test_pixels_as_sure_as_the_threshold_are_kept_however_it_is_rounded(name, below_one):
    """Of a network that is very sure, many pixels of a class have one and the same probability."""
    surest = np.float32(1 - below_one)
    p = torch.tensor([surest, 1 - surest]).view(2, 1, 1).expand(2, 1, 10)
    rule, (labels, confidence) = rule_of(name), most_probable(p)
    thresholds = rule.thresholds(counts_of(labels, steps(confidence), 2))
    assert rule.labels(p, thresholds).tolist() == [[0] * 10]


def test_a_number_is_compared_as_it_is():
    p = torch.tensor([[0.9, 0.89999], [0.1, 0.10001]]).view(2, 1, 2)
    rule = rule_of("0.9")
    assert not rule.needs_all
    assert rule.labels(p, rule.thresholds(np.zeros((2, 1)))).tolist() == [[0, 255]]


def test_steps_are_exact_for_short_decimals_and_fine_where_most_probabilities_are():
    short = np.round(np.arange(0, 1.0001, 0.01), 2)
    assert [probability(int(step)) for step in steps(short)] == pytest.approx(short, abs=1e-15)
    near_one = 1 - np.geomspace(1e-7, 1, 2000)
    back = np.array([probability(int(step)) for step in steps(near_one)])
    error = np.abs(back - near_one)
    assert (error <= np.maximum(2.6e-4 * (1 - near_one), 0.51e-7)).all()
    # float32 has no number between this and 1
    assert steps(np.array(1 - 2**-24)) < steps(np.array(1.0)) == 64_000


def random_images(number=4, classes=5):
    """Probabilities as networks give them: most near 1; class 4 is never the most probable."""
    generator = torch.Generator().manual_seed(3)
    logits = 6 * torch.randn(number, classes, 20, 30, generator=generator)
    logits[:, 4] -= 30
    return logits.softmax(1)


def bdl(images):
    """BDL's SSL.py in other words: all pixels of all images in memory, float32."""
    best = images.max(1)
    labels, confidence = best.indices.numpy(), best.values.numpy()
    thresholds = []
    for index in range(images.shape[1]):
        x = np.sort(confidence[labels == index])
        thresholds.append(0.0 if len(x) == 0 else x[int(np.round(len(x) / 2))])
    thresholds = np.minimum(thresholds, 0.9)
    masks = labels.copy()
    for index, threshold in enumerate(thresholds):
        masks[(confidence < threshold - 1e-7) & (labels == index)] = 255
    return thresholds, masks


def cbst(images, portion):
    """CRST's crst_seg.py in other words, without leaving out pixels."""
    best = images.max(1)
    labels, confidence = best.indices.numpy(), best.values.numpy()
    thresholds = np.ones(images.shape[1])
    for index in range(images.shape[1]):
        x = sorted(confidence[labels == index].tolist(), reverse=True)
        number = int(np.floor(len(x) * portion))
        if number:
            thresholds[index] = x[number - 1]
    weighted = images.numpy() / thresholds[:, None, None]
    masks = weighted.argmax(1)
    masks[weighted.max(1) < 1 - 1e-6] = 255
    return thresholds, masks


@pytest.mark.parametrize("name", ["bdl", "cbst:0.3"])
def test_all_images_together_get_what_a_slow_reference_gives(name):
    images, rule = random_images(), rule_of(name)
    total = sum(
        counts_of(labels, steps(confidence), images.shape[1])
        for labels, confidence in map(most_probable, images)
    )
    thresholds = rule.thresholds(total)
    expected, masks = bdl(images) if name == "bdl" else cbst(images, 0.3)
    np.testing.assert_allclose(thresholds, expected, atol=2.6e-5)
    found = np.stack([rule.labels(image, thresholds) for image in images])
    different = found != masks
    assert different.mean() < 0.002  # pixels within half a step of a threshold
    assert (found == 255).any()
    assert (found != 255).any()
    assert thresholds[4] == (0 if name == "bdl" else 1)  # never predicted


@pytest.mark.parametrize("text", ["1.5", "-0.1", "nan", "bdl:1", "cbst:0", "cbst:2", "cbst:", ""])
def test_what_is_no_rule_is_refused(text):
    with pytest.raises(ConfidenceError, match=r"--min_confidence is .*expected a probability"):
        rule_of(text)


def test_rules_are_read_from_the_command_line():
    assert rule_of(0.5) == rule_of("0.5") == Rule("number", 0.5)
    assert rule_of(0) == Rule("number", 0)
    assert rule_of("bdl") == Rule("bdl", 0.9)
    assert rule_of("cbst") == rule_of("cbst:0.2") == Rule("cbst", 0.2)
