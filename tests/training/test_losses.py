"""Balanced, class-weighted and OHEM losses: worked values, slow references, and never NaN."""

import json
import math

import numpy as np
import pytest
import torch

from deeplab_lit.cli.parser import parse
from deeplab_lit.cli.run import build_parser
from deeplab_lit.data.class_weights import enet, median_frequency
from deeplab_lit.errors import UserError
from deeplab_lit.network.multiscale import ScaleLogits
from deeplab_lit.training.loss import deeplab_loss
from deeplab_lit.training.losses import OHEM, Balanced, ClassWeighted
from deeplab_lit.types import VOID

LOSSES = [
    Balanced(),
    ClassWeighted([0.5, 2.0, 0.0]),
    *(OHEM(variant=v, min_kept=k) for v in ("hrnet", "toolbox", "bisenet") for k in (None, 0, 99)),
]


def logits_of(probabilities, target, classes=2):
    """Logits (1,C,1,n) with these probabilities of the true class; the others share the rest."""
    p = torch.empty(1, classes, 1, len(target), dtype=torch.float64)
    for i, (value, truth) in enumerate(zip(probabilities, target, strict=True)):
        p[0, :, 0, i] = (1 - value) / (classes - 1)
        p[0, truth if truth != VOID else 0, 0, i] = value
    return p.log()


def unfloored(p, classes=2):
    """The softmax that becomes p by DSRG's floor of 1e-4."""
    return p * (1 + classes * 1e-4) - 1e-4


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        ([([0.5, 0.25, 0.2, 0.9], [0, 0, 1, 255])], 2.6492),
        ([([0.5, 0.25, 0.2, 0.9], [0, 0, 1, 255]), ([0.5] * 4, [0] * 4)], 1.6712),
    ],
)
def test_the_balanced_loss_gives_the_worked_values(images, expected):
    maps = [logits_of([unfloored(p) for p in ps], target) for ps, target in images]
    target = torch.tensor([[target] for _, target in images])
    assert Balanced()(torch.cat(maps), target).item() == pytest.approx(expected, abs=5e-5)


def test_the_floor_of_the_balanced_loss_is_dsrgs():
    logits = torch.tensor([0.25, 0.75]).log().view(1, 2, 1, 1)
    loss = Balanced()(logits, torch.tensor([[[1]]])).item()
    assert math.exp(-loss) == pytest.approx(0.74995, abs=5e-6)


def test_the_balanced_loss_agrees_with_dsrgs_code():
    """With pylayers.py:120-137, line by line, the background at another index."""
    generator = torch.manual_seed(0)
    logits = torch.randn(3, 4, 5, 6, generator=generator)
    target = torch.randint(0, 4, (3, 5, 6), generator=generator)
    target[0, :2], target[1][target[1] == 2], target[2] = VOID, 1, 2
    p = logits.softmax(1).numpy() + 1e-4
    p /= p.sum(1, keepdims=True)
    labels = np.stack([(target == c).numpy() for c in range(4)], 1).astype(float)
    is_fg = [0, 1, 3]
    count_bg = labels[:, [2]].sum((1, 2, 3), keepdims=True)
    count_fg = labels[:, is_fg].sum((1, 2, 3), keepdims=True)
    bg = -((labels[:, [2]] * np.log(p[:, [2]])).sum((1, 2, 3), keepdims=True))
    fg = -((labels[:, is_fg] * np.log(p[:, is_fg])).sum((1, 2, 3), keepdims=True))
    expected = (bg / np.maximum(count_bg, 1e-4)).mean() + (fg / np.maximum(count_fg, 1e-4)).mean()
    assert Balanced(background=2)(logits, target).item() == pytest.approx(expected, rel=1e-5)


def test_the_weighted_loss_gives_the_worked_value_which_is_torchs():
    logits, target = logits_of([0.5, 0.25, 0.8], [0, 0, 1]), torch.tensor([[[0, 0, 1]]])
    assert ClassWeighted([1, 2])(logits, target).item() == pytest.approx(0.63143, abs=5e-6)
    maps, labels = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    labels[0, 0] = VOID
    weights = [0.3, 1.0, 7.0]
    expected = torch.nn.functional.cross_entropy(
        maps, labels, torch.tensor(weights), ignore_index=VOID
    )
    torch.testing.assert_close(ClassWeighted(weights)(maps, labels), expected)


def test_the_rules_of_class_weights_give_the_worked_values():
    shares = np.array([0, 0.01, 0.1, 0.5])
    assert enet(shares * 1000, void=390) == pytest.approx(
        [50.498, 33.831, 8.8239, 2.3883], rel=1e-4
    )
    assert enet(np.array([9])) == pytest.approx([1.4223], rel=1e-4)
    pixels, of_images = np.array([5, 1, 2]), np.array([8, 4, 4])  # {A3,B1}, {A2,C2}
    assert median_frequency(pixels, of_images) == pytest.approx([0.8, 2, 1])
    assert enet(pixels) == pytest.approx([2.0091, 7.3853, 4.1838], rel=1e-4)
    absent = median_frequency(np.array([5, 1, 0, 2]), np.array([8, 4, 0, 4]))
    assert absent == pytest.approx([0.8, 2, 0, 1])


P = [0.9, 0.8, 0.75, 0.6, 0.3, 0.95]


@pytest.mark.parametrize(
    ("variant", "min_kept", "expected"),
    [
        ("hrnet", 1, 0.85740), ("hrnet", 3, 0.66749), ("hrnet", 5, 0.46620),
        ("toolbox", 3, 0.66749), ("toolbox", 4, 0.55641), ("toolbox", 6, 0.39705),
        ("bisenet", 1, 0.85740), ("bisenet", 3, 0.66749),
    ],
)  # fmt: skip
def test_each_form_of_ohem_gives_the_worked_values(variant, min_kept, expected):
    target = [0, 1, 1, 0, 1, 0]
    logits, void = logits_of([*P, 0.1], [*target, 255]), torch.tensor([[[*target, 255]]])
    loss = OHEM(0.7, min_kept, variant)
    assert loss(logits, void).item() == pytest.approx(expected, abs=5e-6)


@pytest.mark.parametrize("variant", ["hrnet", "toolbox", "bisenet"])
@pytest.mark.parametrize("min_kept", [0, 1, 20, 39, 40, 50, 100])
@pytest.mark.filterwarnings("ignore")
def test_ohem_agrees_with_the_released_code(variant, min_kept):
    generator = torch.manual_seed(min_kept)
    logits = torch.randn(2, 3, 4, 8, generator=generator, dtype=torch.float64).float() * 2
    target = torch.randint(0, 3, (2, 4, 8), generator=generator)
    target[0, :2] = VOID
    target[1, 0] = VOID  # 40 of 64 are labeled
    valid = target != VOID
    losses = torch.nn.functional.cross_entropy(logits, target, ignore_index=VOID, reduction="none")[
        valid
    ]
    p = logits.softmax(1).gather(1, torch.where(valid, target, 0)[:, None])[:, 0][valid]
    ascending = p.sort().values
    if variant == "hrnet":
        kept = losses[p < max(0.7, ascending[min(min_kept, len(p) - 1)])]
    elif variant == "toolbox":
        bound = max(0.7, ascending[min(len(p), min_kept) - 1]) if min_kept else 0.7
        kept = losses if min_kept >= len(p) else losses[p <= bound]
    else:
        kept = losses[losses > -math.log(0.7)]
        if len(kept) < min_kept:
            kept = losses.topk(min(min_kept, len(p))).values
    found = OHEM(0.7, min_kept, variant)(logits, target)
    torch.testing.assert_close(found, kept.mean())


def hard_cases():
    some = torch.tensor([[[0, 1], [2, VOID]], [[0, 0], [1, 2]]])
    one_class = torch.ones_like(some)
    nothing = torch.full_like(some, VOID)
    one_image = torch.stack([some[0], nothing[0]])
    one_pixel = nothing.clone()
    one_pixel[0, 0, 0] = 2
    return {"some": some, "one class": one_class, "nothing": nothing,
            "one image": one_image, "one pixel": one_pixel}  # fmt: skip


@pytest.mark.parametrize("target", hard_cases().values(), ids=hard_cases())
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
@pytest.mark.filterwarnings("ignore")
def test_no_loss_is_ever_nan_nor_is_its_gradient(target, dtype, scale):
    torch.manual_seed(1)
    for loss in LOSSES:
        logits = (torch.randn(2, 3, 2, 2).clamp(-1, 1) * scale).to(dtype).requires_grad_()
        value = loss(logits, target)
        value.backward()
        assert (value.ndim, value.dtype) == (0, torch.float32), loss
        assert value.isfinite(), loss
        assert logits.grad.isfinite().all(), loss
        if (target == VOID).all():
            assert value == 0, loss
            assert not logits.grad.any(), loss


@pytest.mark.parametrize("size", ["grid", "image"])
def test_each_loss_takes_the_place_of_every_scales_cross_entropy(size):
    torch.manual_seed(0)
    maps = [torch.randn(2, 3, 5, 5) for _ in range(3)]
    mask = torch.randint(0, 3, (2, 33, 33), dtype=torch.uint8)
    for loss in LOSSES[:3]:
        alone = [
            deeplab_loss(ScaleLogits(m, [m]), mask, loss, align_corners=True, size=size)
            for m in maps
        ]
        total = deeplab_loss(
            ScaleLogits(maps[2], maps[:2]), mask, loss, align_corners=True, size=size
        )
        torch.testing.assert_close(total, sum(alone))
        if size == "grid":
            torch.testing.assert_close(alone[0], loss(maps[0], mask[:, ::8, ::8].long()))


@pytest.fixture
def weight_file(tmp_path):
    """What prepare check --weights writes, of the pixels of the worked values."""
    path = tmp_path / "weights.json"
    content = {
        "classes": ["road", "car", "sky"],
        "weights": {"enet": [2.0, 7.4, 4.2], "median_frequency": [0.8, 2, 1]},
    }
    path.write_text(json.dumps(content))
    return path


def test_weights_of_a_file_are_those_of_the_rule(weight_file):
    loss = ClassWeighted(file=str(weight_file), rule="median_frequency")
    loss.check_classes(["road", "car", "sky"])
    assert loss.weights == [0.8, 2, 1]
    assert not loss.state_dict()  # a checkpoint needs none of it


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (["road", "sky", "car"], "have car where the network's 3 have sky, at index 1"),
        (["road", "car"], "its 3 classes have sky where the network's 2 have None, at index 2"),
        (["road", "car", "sky", "sea"], "3 classes have None where the network's 4 have sea"),
    ],
)
def test_weights_of_other_classes_or_another_order_are_refused_by_name(weight_file, names, words):
    with pytest.raises(ValueError, match=words):
        ClassWeighted(file=str(weight_file), rule="enet").check_classes(names)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: Balanced(-1), "background is out of range: -1"),
        (lambda: Balanced(3).check_classes("abc"), "expected 0…2"),
        (lambda: ClassWeighted(), "neither given"),
        (lambda: ClassWeighted([1.0], "x.json", "enet"), "both given"),
        (lambda: ClassWeighted(file="x.json"), "go together"),
        (lambda: ClassWeighted(file="x.json", rule="enet"), "x.json cannot be read"),
        (lambda: ClassWeighted(file=__file__, rule="enet"), "holds no weights"),
        (lambda: ClassWeighted([1.0, -1.0]), "0 or more"),
        (lambda: ClassWeighted([0.0, 0.0]), "not all of them 0"),
        (lambda: ClassWeighted([1.0, math.nan]), "0 or more"),
        (lambda: ClassWeighted([1.0, 2.0]).check_classes("abc"), "2 weights, but there are 3"),
        (lambda: OHEM(0), "threshold is out of range: 0"),
        (lambda: OHEM(min_kept=-1), "min_kept is out of range"),
        (lambda: OHEM(variant="mine"), "one of hrnet, toolbox, bisenet, got 'mine'"),
    ],
)
def test_options_out_of_range_are_refused(build, words):
    with pytest.raises(ValueError, match=words):
        build()


def test_a_background_that_is_not_called_so_is_mentioned(recwarn):
    Balanced().check_classes(["_background_", "cat"])
    assert not recwarn
    with pytest.warns(UserWarning, match="class 0, road"):
        Balanced().check_classes(["road", "cat"])


def test_more_pixels_to_keep_than_there_are_is_said():
    with pytest.warns(UserWarning, match="keeps every pixel"):
        OHEM(min_kept=4)(torch.zeros(1, 2, 2, 2), torch.zeros(1, 2, 2, dtype=torch.int64))


@pytest.mark.filterwarnings("ignore")
def test_a_training_that_goes_on_is_held_to_its_loss(make_module, weight_file):
    classes = {"road": (0, 0, 0), "car": (1, 1, 1), "sky": (2, 2, 2)}
    file = ClassWeighted(file=str(weight_file), rule="median_frequency")
    checkpoint: dict = {}
    make_module(classes, loss=file).on_save_checkpoint(checkpoint)
    same = ClassWeighted([0.8, 2.0, 1.0])
    make_module(classes, loss=same).check_checkpoint(checkpoint)
    for other in (None, Balanced(), ClassWeighted(file=str(weight_file), rule="enet")):
        with pytest.raises(UserError, match=r"was trained with --model\.loss"):
            make_module(classes, loss=other).check_checkpoint(checkpoint)


@pytest.fixture(scope="module")
def parser():
    return build_parser("fit", "", "")


@pytest.mark.parametrize(
    ("words", "name", "expected"),
    [
        (["Balanced"], "Balanced", {"background": 0}),
        (["OHEM", "--model.loss.threshold", "0.9"], "OHEM", {"threshold": 0.9}),
        (["ClassWeighted", "--model.loss.file=w", "--model.loss.rule=enet"], "ClassWeighted",
         {"file": "w", "rule": "enet"}),
    ],
)  # fmt: skip
def test_losses_go_by_their_names_on_the_command_line_and_in_files(parser, words, name, expected):
    typed = parse(parser, ["--model.loss", *words]).model.loss
    assert typed.class_path == f"deeplab_lit.training.losses.{name}"
    assert expected.items() <= vars(typed.init_args).items()
    content = {"model": {"loss": {"class_path": name, "init_args": expected}}}
    assert parse(parser, ["--config=x"], {"x": content}).model.loss == typed


def test_an_unknown_loss_is_answered_by_those_there_are(parser):
    with pytest.raises(UserError, match="expected one of Balanced, ClassWeighted, OHEM, …"):
        parse(parser, ["--model.loss", "Balnced"])
