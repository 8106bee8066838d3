"""ADVENT's formulas against hand-worked values, and MinEnt against two separate backward passes.

AdvEnt's step is AdaptSegNet's: tests/methods/test_adaptsegnet.py trains both.
"""

import copy
import math

import pytest
import torch
from torch.nn import functional as F

from deeplab_lit import fit
from deeplab_lit.data import Shapes
from deeplab_lit.loading import DataModule
from deeplab_lit.methods import MinEnt
from deeplab_lit.methods.advent import entropy_loss, weighted_self_information


def pixels(*probabilities):
    """Class probabilities of pixels in a row, as (1,C,1,W)."""
    return torch.tensor(probabilities, dtype=torch.float64).T[None, :, None]


def test_self_information_and_entropy_of_hand_worked_pixels():
    of_four = pixels([0.5, 0.25, 0.125, 0.125])
    information = weighted_self_information(of_four).flatten().tolist()
    assert information == pytest.approx([0.25, 0.25, 0.1875, 0.1875])
    assert entropy_loss(of_four).item() == pytest.approx(0.875)  # 1.75 bits of 2
    uniform = pixels([1 / 19] * 19, [1 / 19] * 19)
    assert weighted_self_information(uniform).flatten().tolist() == pytest.approx([1 / 19] * 38)
    assert entropy_loss(uniform).item() == pytest.approx(1)


def test_the_entropy_of_certain_pixels_is_zero_with_finite_gradients():
    certain = torch.tensor([[1.0], [0.0]])[None, :, None].requires_grad_()
    entropy_loss(certain).backward()
    assert entropy_loss(certain).item() == 0
    assert certain.grad.isfinite().all()


def test_the_entropy_is_a_mean_over_pixels_and_images():
    sure, unsure = pixels([1.0, 0.0]), pixels([0.5, 0.5])
    assert entropy_loss(torch.cat([sure, unsure])).item() == pytest.approx(0.5)
    assert entropy_loss(torch.cat([sure, sure, unsure], 3)).item() == pytest.approx(1 / 3)


def test_minent_steps_as_the_authors_loop_does(make_trainer, make_data):
    """Labels of the source first, then the entropy of the target, each with its own backward."""
    torch.manual_seed(0)
    options = {"backbone": "resnet10_quarter", "weights": "none", "norm": "frozen_affine"}
    options |= {"scales": (1.0,), "atrous_rates": (2, 4), "loss_size": "image", "aux_head": True}
    weights = {"lambda_ent_main": 0.5, "lambda_ent_aux": 0.2}
    module = MinEnt(Shapes.classes, lr=1e-2, **options, **weights)
    data = DataModule(
        Shapes(4, 1), unlabeled=Shapes(4, 1, 7), batch_size=1, crop_size=65, num_workers=0
    )
    trainer = make_trainer(max_steps=1, limit_val_batches=0)
    twin = copy.deepcopy(module)
    batches = []
    module.on_train_batch_end = lambda outputs, batch, index: batches.append(batch)
    trainer.fit(module, datamodule=data)
    (batch,) = batches

    def outputs(images):
        return [
            F.interpolate(level.fused, size=(65, 65), mode="bilinear", align_corners=True)
            for level in net.logits_and_aux(images)
        ]

    net = twin.net.train()
    optimizer = torch.optim.SGD(twin.parameter_groups(), lr=1e-2, momentum=0.9)
    main, aux = outputs(batch["image"])
    mask = batch["mask"].long()
    loss = F.cross_entropy(main, mask, ignore_index=255)
    (loss + 0.1 * F.cross_entropy(aux, mask, ignore_index=255)).backward()
    for weight, logits in zip((0.5, 0.2), outputs(batch["unlabeled"]["image"]), strict=True):
        p = logits.softmax(1)
        n, c, h, w = p.shape
        entropy = -torch.sum(p * torch.log2(p + 1e-30)) / (n * h * w * math.log2(c))
        (weight * entropy).backward(retain_graph=True)
    optimizer.step()
    for name, value in net.state_dict().items():
        torch.testing.assert_close(module.net.state_dict()[name], value, rtol=1e-4, atol=1e-6)


def test_minent_accumulates_gradients_and_logs_its_parts(tiny_args, tmp_path):
    options = {"--model": "deeplab_lit.methods.MinEnt", "--unlabeled_data": "Shapes", "--run": "m"}
    options |= {"--unlabeled_data.draw_seed": "7", "--trainer.log_every_n_steps": "1"}
    options |= {"--trainer.accumulate_grad_batches": "2", "--trainer.max_steps": "2"}
    run = fit.main(tiny_args(tmp_path, **options))
    names = (run.folder / "metrics.csv").read_text().splitlines()[0].split(",")
    assert {"train/loss", "train/source_loss", "train/entropy_loss_main", "val/miou"} <= set(names)
    assert run.trainer.global_step == 2


def test_minent_needs_images_without_labels(tiny_args, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        fit.main(tiny_args(tmp_path, **{"--model": "deeplab_lit.methods.MinEnt"}))
    assert stop.value.code == 2
    assert "error: MinEnt needs --unlabeled_data" in capsys.readouterr().err
