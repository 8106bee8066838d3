import copy

import pytest
import torch
from torch.nn import functional as F

from deeplab_lit import fit, load
from deeplab_lit.data import Shapes
from deeplab_lit.methods import Distillation
from deeplab_lit.network.multiscale import ScaleLogits
from deeplab_lit.training.loss import soft_loss
from deeplab_lit.training.losses import soft_cross_entropy
from deeplab_lit.types import VOID

SMALL = {"weights": "none", "backbone": "resnet10_quarter", "atrous_rates": (2, 4)}


def distillation(teacher, classes=Shapes.classes, **options):
    torch.manual_seed(0)
    return Distillation(
        classes, teacher=str(teacher), **{**SMALL, "scales": (1.0, 0.5), "norm": "batch", **options}
    )


def test_soft_targets_give_the_worked_value_and_hard_ones_the_cross_entropy():
    logits = torch.tensor([0.25, 0.75]).log().view(1, 2, 1, 1)
    target = torch.tensor([0.4, 0.6]).view(1, 2, 1, 1)
    counts = torch.ones(1, 1, 1, dtype=torch.bool)
    expected = 0.4 * 1.386294 + 0.6 * 0.287682
    assert soft_cross_entropy(logits, target, counts).item() == pytest.approx(expected, abs=1e-6)
    maps, labels = torch.randn(2, 3, 4, 4), torch.randint(0, 3, (2, 4, 4))
    one_hot = F.one_hot(labels, 3).permute(0, 3, 1, 2)
    labels[0, 1] = VOID
    found = soft_cross_entropy(maps, one_hot, labels != VOID)
    torch.testing.assert_close(found, F.cross_entropy(maps, labels, ignore_index=VOID))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_soft_targets_never_give_nan(dtype):
    logits = (torch.eye(3).view(1, 3, 1, 3) * 1e4).to(dtype).requires_grad_()
    target = torch.tensor([0.0, 0.0, 1.0]).view(1, 3, 1, 1).expand(1, 3, 1, 3)
    for counts in (torch.ones(1, 1, 3, dtype=torch.bool), torch.zeros(1, 1, 3, dtype=torch.bool)):
        loss = soft_cross_entropy(logits, target, counts)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss.isfinite()
        assert gradient.isfinite().all()
    assert loss == 0


@pytest.mark.parametrize("size", ["grid", "image"])
def test_the_soft_loss_is_summed_over_scales_and_their_maximum(size):
    torch.manual_seed(0)
    maps = [torch.randn(1, 3, 5, 5) for _ in range(3)]
    target, counts = torch.randn(1, 3, 33, 33).softmax(1), torch.rand(1, 33, 33) < 0.5
    total = soft_loss(ScaleLogits(maps[2], maps[:2]), target, counts, align_corners=True, size=size)
    expected = 0
    for logits in maps:
        if size == "image":
            large = F.interpolate(logits, (33, 33), mode="bilinear", align_corners=True)
            expected += soft_cross_entropy(large, target, counts)
        else:
            expected += soft_cross_entropy(logits, target[..., ::8, ::8], counts[..., ::8, ::8])
    torch.testing.assert_close(total, expected)


def test_a_student_that_is_its_teacher_has_nothing_to_learn_from_it(trained):
    module = distillation(trained, temperature=2.0, scales=(1.0,))
    module.net = copy.deepcopy(module.teacher).eval().requires_grad_(True)
    images = torch.randint(256, (2, 3, 65, 65), dtype=torch.uint8)
    counts = torch.ones(2, 65, 65, dtype=torch.bool)
    module.teacher_loss(module.net.logits(images), images, counts).backward()
    gradients = [p.grad for p in module.net.parameters() if p.grad is not None]
    assert gradients
    assert max(g.abs().max() for g in gradients) < 1e-5
    assert all(p.grad is None for p in module.teacher.parameters())


def test_a_teacher_of_other_classes_is_refused(trained):
    with pytest.raises(ValueError, match="tells other classes apart"):
        distillation(trained, {"a": (0, 0, 0), "b": (1, 1, 1)})
    swapped = dict(reversed(Shapes.classes.items()))
    with pytest.raises(ValueError, match="or in another order"):
        distillation(trained, swapped)


@pytest.mark.parametrize(
    "options", [{"soft_weight": -1.0}, {"temperature": 0.0}, {"temperature": float("nan")}]
)
def test_options_out_of_range_are_refused(trained, options):
    with pytest.raises(ValueError, match="is out of range"):
        distillation(trained, **options)


def test_the_command_line_trains_with_a_teacher_that_stays_as_it_is(trained, tmp_path, tiny_args):
    options = {"--model": "deeplab_lit.methods.Distillation", "--model.teacher": str(trained)}
    options |= {"--unlabeled_data": "Shapes", "--unlabeled_data.train_size": "4"}
    done = fit.main(tiny_args(tmp_path / "runs", **options, **{"--run": "x"}))
    logged = done.trainer.logged_metrics
    expected = logged["train/labeled_loss"] + logged["train/soft_loss"]
    assert logged["train/loss"] == pytest.approx(expected.item(), rel=1e-5)
    for name, value in load(trained).state_dict().items():
        assert done.module.teacher.state_dict()[name].equal(value), name
    load(done.folder / "checkpoints/last.ckpt")
