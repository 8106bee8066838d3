import csv

import numpy as np
import pytest
import torch
import torchvision
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader

from deeplab_lit.data import Shapes
from deeplab_lit.errors import UserError
from deeplab_lit.loading import DataModule
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.runs.csv_logger import MetricsFile
from deeplab_lit.runs.provenance import Provenance
from deeplab_lit.scoring.evaluation import Evaluation
from deeplab_lit.training.module import DeepLabModule
from deeplab_lit.training.optimizer import build_optimizer, parameter_groups

VALIDATION = {"val/loss", "val/miou", "val/pixel_accuracy", "val/mean_accuracy", "val/fw_iou"}
RATES = {"lr/backbone", "lr/head.weight", "lr/head.bias"}


def one_image(size=65):
    image, mask = Shapes().split("train").read(3)
    return {
        "image": torch.from_numpy(image[:size, :size].copy()).permute(2, 0, 1)[None],
        "mask": torch.from_numpy(mask[:size, :size].copy())[None],
        "id": ["3"],
    }


def ten_images(void):
    """Noise, and labels in blocks of 8 pixels; with void, the first image is void but for a row."""
    torch.manual_seed(1)
    images = torch.randint(0, 256, (10, 3, 65, 65), dtype=torch.uint8)
    masks = torch.randint(0, 7, (10, 9, 9), dtype=torch.uint8)
    masks = masks.repeat_interleave(8, 1).repeat_interleave(8, 2)[:, :65, :65]
    if void:
        masks[0, 1:] = 255
    return [{"image": images[i], "mask": masks[i], "id": str(i)} for i in range(10)]


def buffers(module):
    return {k: v.clone() for k, v in module.net.named_buffers()}


@pytest.fixture
def resnet18_file(tmp_path):
    """A torchvision ResNet-18 with statistics that are not the initial ones."""
    net = torchvision.models.resnet18()
    for buffer in net.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    torch.save(net.state_dict(), tmp_path / "resnet18.pth")
    return str(tmp_path / "resnet18.pth")


@pytest.fixture
def fitted(make_module, make_data, make_trainer, tmp_path):
    """A trainer after four steps, with a validation in the middle and at the end."""
    checkpoints = ModelCheckpoint(tmp_path / "checkpoints", "best", "val/miou", mode="max")
    trainer = make_trainer(
        enable_checkpointing=True,
        callbacks=[checkpoints],
        logger=MetricsFile(tmp_path),
        val_check_interval=2,
    )
    trainer.fit(make_module(), make_data())
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    return trainer


def test_the_loss_falls_on_one_image(make_module):
    module, batch = make_module(), one_image()
    module.log = lambda *args, **kwargs: None
    groups = parameter_groups(module.net, lr=0.01, weight_decay=0, head_lr_mult=10)
    optimizer = build_optimizer(groups)
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        loss = module.training_step(batch, 0)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert np.mean(losses[-3:]) < 0.5 * losses[0]


def test_a_step_of_fit_is_a_step_of_sgd_on_the_loss(make_module, make_data, make_trainer):
    module, batches = make_module(norm="batch"), []
    reference = make_module(norm="batch").net
    module.on_train_batch_start = lambda batch, index: batches.append(batch)
    make_trainer(max_steps=1, limit_val_batches=0).fit(module, make_data())
    logits = reference.train()(batches[0]["image"])  # (B,C,65,65); every 8th pixel is a cell's own
    target = batches[0]["mask"][:, ::8, ::8].long()
    loss = torch.nn.functional.cross_entropy(logits[:, :, ::8, ::8], target, ignore_index=255)
    bias, weight = reference.head.branches[0].bias, reference.backbone.conv1.weight
    to_bias, to_weight = torch.autograd.grad(loss, [bias, weight])
    after = module.net
    torch.testing.assert_close(
        after.head.branches[0].bias.detach(), (bias - 20 * 1e-3 * to_bias).detach()
    )
    expected = weight - 1e-3 * (to_weight + 5e-4 * weight)
    torch.testing.assert_close(after.backbone.conv1.weight.detach(), expected.detach())


def test_a_step_may_be_that_of_the_methods_descendants(make_module, make_data, make_trainer):
    """As AdaptSegNet's code learns a source: two heads, full-size logits, biases like weights.

    Weight and bias of normalization stay; SGD has two groups, the heads at ten times the rate.
    """
    options = {
        "aux_head": True, "loss_size": "image", "norm": "frozen_affine", "bias_lr_mult": 1.0,
        "bias_weight_decay": True, "schedule_steps": 250_000,
    }  # fmt: skip
    module, net, batches = make_module(**options), make_module(**options).net.train(), []
    module.on_train_batch_start = lambda batch, index: batches.append(batch)
    make_trainer(max_steps=2, limit_val_batches=0).fit(module, make_data())
    heads = [*net.head.parameters(), *net.aux_head.parameters()]
    trunk = [p for p in net.backbone.parameters() if p.requires_grad]
    groups = [{"params": trunk, "lr": 1e-3}, {"params": heads, "lr": 1e-2}]
    sgd = torch.optim.SGD(groups, lr=1e-3, momentum=0.9, weight_decay=5e-4)
    features = {}
    net.backbone.layer3[-1].register_forward_hook(lambda *x: features.update(layer3=x[2]))
    for step, batch in enumerate(batches):
        for group, lr in zip(sgd.param_groups, (1e-3, 1e-2), strict=True):
            group["lr"] = lr * (1 - step / 250_000) ** 0.9
        main = net.head(net.backbone(net.preprocess(batch["image"])))
        losses = []
        for logits in (main, net.aux_head(features["layer3"])):
            size = batch["image"].shape[-2:]
            full = torch.nn.functional.interpolate(
                logits, size, mode="bilinear", align_corners=True
            )
            target = batch["mask"].long()
            losses.append(torch.nn.functional.cross_entropy(full, target, ignore_index=255))
        sgd.zero_grad()
        (losses[0] + 0.1 * losses[1]).backward()
        sgd.step()
    found = module.net.state_dict()
    for name, value in net.state_dict().items():
        torch.testing.assert_close(found[name], value, msg=name)


@pytest.mark.parametrize("void", [False, True])
def test_ten_batches_of_one_image_are_a_step_as_with_iter_size_10(make_module, make_trainer, void):
    """The mean of ten passes' gradients: where no pixel is void, that of one batch of ten."""
    images = ten_images(void)

    def gradients(batch_size, accumulate):
        module, found = make_module(norm="frozen", scales=(1.0, 0.5)), []
        module.initialize = Provenance  # of random weights, which frozen norms refuse
        module.on_before_optimizer_step = lambda _: found.extend(
            p.grad.clone() for p in module.net.parameters()
        )
        trainer = make_trainer(max_steps=1, accumulate_grad_batches=accumulate)
        trainer.fit(module, DataLoader(images, batch_size))
        assert trainer.global_step == 1
        return found

    net = make_module(norm="frozen", scales=(1.0, 0.5)).net
    loss = 0
    for image in images:
        logits = net.logits(image["image"][None])
        for x, step in ((logits.fused, 8), (logits.at_scales[0], 8), (logits.at_scales[1], 16)):
            target = image["mask"][None, ::step, ::step].long()
            loss = loss + torch.nn.functional.cross_entropy(x, target, ignore_index=255) / 10
    expected = list(torch.autograd.grad(loss, list(net.parameters())))
    accumulated, at_once = gradients(1, 10), gradients(10, 1)
    torch.testing.assert_close(accumulated, expected, rtol=1e-4, atol=1e-6)
    if not void:
        torch.testing.assert_close(at_once, expected, rtol=1e-4, atol=1e-6)
    else:  # Caffe, too, weighs each pass alike, however few its pixels
        assert not torch.allclose(at_once[-1], expected[-1], rtol=1e-2)


def test_frozen_statistics_stay_as_loaded(resnet18_file, make_data, make_trainer, make_module):
    module = make_module(backbone="resnet18", norm="frozen", weights=resnet18_file)
    saved = torch.load(resnet18_file, weights_only=True)
    make_trainer(max_steps=2, val_check_interval=1, limit_val_batches=1).fit(module, make_data())
    found = module.net.backbone.state_dict()
    frozen = [k for k in found if "running" in k or ".bn" in k or k.startswith("bn1")]
    assert len(frozen) == 4 * 20 - 3 * 2  # of the three shortcuts only the statistics
    assert all(found[key].equal(saved[key]) for key in frozen)
    assert not found["conv1.weight"].equal(saved["conv1.weight"])


def test_trained_statistics_move_in_training_and_not_in_validation(
    make_module, make_data, make_trainer
):
    module = make_module()
    before = buffers(module)
    make_trainer(max_steps=1, limit_val_batches=0).fit(module, make_data())
    trained = buffers(module)
    assert not trained["backbone.bn1.running_mean"].equal(before["backbone.bn1.running_mean"])
    make_trainer().validate(module, make_data(), verbose=False)
    assert all(x.equal(trained[key]) for key, x in buffers(module).items())


def test_a_resumed_run_does_not_look_for_its_first_weights(
    fitted, make_module, make_data, make_trainer, tmp_path
):
    module = make_module(weights="/nowhere/weights.pth")
    trainer = make_trainer(max_steps=5)
    trainer.fit(module, make_data(), ckpt_path=tmp_path / "end.ckpt", weights_only=True)
    assert trainer.global_step == 5


def test_the_end_of_training_must_be_known(make_module, make_data, make_trainer):
    trainer = make_trainer(max_steps=-1, max_epochs=-1)
    with pytest.raises(ValueError, match=r"max_steps.*max_epochs"):
        trainer.fit(make_module(), make_data())


def test_a_run_that_is_given_in_epochs_knows_its_end(make_module, make_data, make_trainer):
    trainer = make_trainer(max_steps=-1, max_epochs=2, limit_val_batches=0)
    trainer.fit(make_module(), make_data(train_size=6))
    assert trainer.global_step == 2 * 3
    assert trainer.optimizers[0].param_groups[0]["lr"] == 0  # the schedule has ended too


def test_a_checkpoint_holds_the_training_and_nothing_of_the_evaluation(fitted, tmp_path):
    for name in ("checkpoints/best", "end"):
        checkpoint = torch.load(tmp_path / f"{name}.ckpt", weights_only=True)
        hparams = checkpoint["hyper_parameters"]
        assert hparams["atrous_rates"] == (2, 4)
        assert hparams["scales"] == (1.0,)
        assert not [key for key in hparams if "eval" in key or "crf" in key]
        assert hparams.keys() == {
            "classes", "weights", "lr", "momentum", "weight_decay", "poly_power", "head_lr_mult",
            "lr_policy", "step_size", "step_factor", "warmup_steps", "freeze", "compile",
            "backbone", "norm", "scales", "atrous_rates", "collapse_share", "loss_size",
            "aux_weight", "bias_lr_mult", "bias_weight_decay", "schedule_steps", "feature_cache",
        }  # fmt: skip


def test_a_checkpoint_gives_the_same_network_back(fitted, tmp_path):
    module = DeepLabModule.load_from_checkpoint(
        tmp_path / "end.ckpt", map_location="cpu", weights_only=True
    )
    batch = one_image(161)
    with torch.no_grad():
        expected = fitted.lightning_module.net.eval()(batch["image"])
        assert module.net.eval()(batch["image"]).equal(expected)


def test_evaluation_scales_are_used_and_may_be_changed(make_module):
    module, batch = make_module().eval(), one_image(161)
    torch.nn.init.normal_(module.net.head.branches[0].weight, std=0.5)
    scales = (0.5, 1.0, 1.5)
    with torch.no_grad():
        plain = module.validation_step(batch, 0)["logits"]
        module.evaluation = Evaluation(scales)
        several = module.validation_step(batch, 0)["logits"]
        assert plain.equal(module.net(batch["image"]))
        assert several.equal(module.net(batch["image"], scales))
    assert not several.equal(plain)
    assert module.net.scales == (1.0,)  # training is not touched


def test_exactly_the_promised_numbers_are_logged(fitted, tmp_path):
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = {int(row["step"]): row for row in csv.DictReader(file)}
    columns = set(rows[0]) - {"step", "epoch"}
    classes = {key for key in columns if key.startswith("val/iou/")}
    assert columns - classes == VALIDATION | RATES | {"train/loss"}
    assert classes <= {f"val/iou/{name}" for name in Shapes.classes}
    assert "val/iou/background" in classes
    assert list(rows) == [0, 1, 2, 3]
    assert all(row["train/loss"] and row["lr/backbone"] for row in rows.values())
    assert [step for step, row in rows.items() if row["val/miou"]] == [1, 3]
    assert [step for step, row in rows.items() if row["val/fw_iou"]] == [1, 3]


def test_a_class_that_is_absent_is_not_logged(make_module, make_data, make_trainer, tmp_path):
    module = make_module({**Shapes.classes, "unicorn": (1, 2, 3)})
    torch.nn.init.constant_(module.net.head.branches[0].bias[-1:], -1e4)  # never predicted
    make_trainer(logger=MetricsFile(tmp_path)).validate(module, make_data(), verbose=False)
    assert "unicorn" not in (tmp_path / "metrics.csv").read_text()
    assert module.scores.iou[-1].isnan()


def test_validation_in_fit_scores_as_validate_does(fitted, make_data, make_trainer, tmp_path):
    in_fit, scores = fitted.callback_metrics["val/miou"].item(), fitted.lightning_module.scores
    module = DeepLabModule.load_from_checkpoint(
        tmp_path / "end.ckpt", map_location="cpu", weights_only=True
    )
    (alone,) = make_trainer().validate(module, make_data(), verbose=False)
    assert alone["val/miou"] == in_fit
    assert module.scores.confusion.equal(scores.confusion)


def test_every_pixel_of_every_image_is_scored_once(fitted):
    split = Shapes(val_size=5).split("val")
    masks = np.stack([split.read(i)[1] for i in range(5)])
    found = fitted.lightning_module.scores.confusion.sum(1).tolist()
    assert found == np.bincount(masks[masks != 255], minlength=7).tolist()


def test_initial_weights_are_loaded_once(make_module, resnet18_file):
    module = make_module(backbone="resnet18", weights=resnet18_file)
    module.initialize()
    stem = module.net.backbone.conv1.weight
    assert stem.equal(torch.load(resnet18_file, weights_only=True)["conv1.weight"])
    torch.nn.init.zeros_(stem)
    module.initialize()
    assert not stem.any()


def test_unknown_options_of_the_network_are_refused():
    with pytest.raises(TypeError, match="ratez"):
        DeepLabModule(Shapes.classes, ratez=(1,))


def test_options_reach_the_network():
    module = DeepLabModule(
        Shapes.classes, backbone="resnet10_quarter", atrous_rates=(3, 5, 7), output_stride=16
    )
    assert isinstance(module.net, DeepLabV2)
    assert [conv.dilation for conv in module.net.head.branches] == [(3, 3), (5, 5), (7, 7)]
    assert module.net.logits(torch.zeros(1, 3, 65, 65, dtype=torch.uint8)).fused.shape == (
        1,
        7,
        5,
        5,
    )


def test_a_checkpoint_says_which_values_the_labels_have(make_module):
    module, checkpoint = make_module(), {}
    module.on_save_checkpoint(checkpoint)
    assert "label_values" not in checkpoint
    module.set_origin(Provenance(), {"sky": 1})
    module.on_save_checkpoint(checkpoint)
    assert checkpoint["label_values"] == {"sky": 1}


class Numbered(Shapes):
    """Shapes whose label files begin at 1."""

    def split(self, name):
        split = super().split(name)
        split.label_map = np.array([255, *range(7), *[254] * 247, 255], np.uint8)
        return split


def test_a_checkpoint_says_the_data_and_the_values_that_were_trained_on(make_module):
    module, unlabeled = make_module(), Shapes(train_split="val")
    module.record_data(DataModule(Numbered(), Shapes(), unlabeled))
    module.on_save_checkpoint(checkpoint := {})
    values = {name: index + 1 for index, name in enumerate(Shapes.classes)}
    assert checkpoint["label_values"] == values
    assert checkpoint["provenance"]["trained_on"] == ["Numbered:train"]
    assert checkpoint["provenance"]["unlabeled_on"] == ["Shapes:val"]


def test_batches_of_ones_own_are_unknown_data(make_module, make_trainer):
    module = make_module()
    make_trainer(max_steps=1, limit_val_batches=0).fit(module, DataLoader([one_image()], None))
    assert module.provenance.trained_on == ("unknown",)


class TwoSteps(DeepLabModule):
    """Steps a second optimizer so that Lightning counts it."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.automatic_optimization = False

    def configure_optimizers(self):
        return [torch.optim.SGD(self.net.parameters(), 0.01) for _ in range(2)]

    def training_step(self, batch, batch_idx):
        for optimizer in self.optimizers():
            optimizer.step()


def test_a_second_counted_step_in_a_batch_is_refused(make_trainer):
    module = TwoSteps(Shapes.classes, backbone="resnet10_quarter", weights="none", norm="batch")
    trainer = make_trainer(max_steps=4, limit_val_batches=0)
    with pytest.raises(UserError, match=r"2 optimizer steps in one batch.*optimizer\.optimizer\."):
        trainer.fit(module, DataLoader([one_image()], None))


@pytest.mark.parametrize("norm", ["batch", "frozen_affine"])
def test_what_counts_batches_is_not_compiled_and_recomputed_at_once(make_module, norm):
    both = {"compile": True, "gradient_checkpointing": True}
    with pytest.raises(ValueError, match="cannot recompute trained normalization"):
        make_module(norm=norm, **both)
    make_module(norm="frozen", **both)


def test_frozen_parts_keep_their_statistics_where_the_others_follow_the_batches(
    make_module, make_data, make_trainer
):
    module = make_module(norm="frozen_affine", freeze=["bn1", "layer1"])
    before = buffers(module)
    make_trainer(max_steps=3, val_check_interval=1, limit_val_batches=1).fit(module, make_data())
    for name, value in buffers(module).items():
        if "running" in name:
            frozen = name.startswith(("backbone.bn1.", "backbone.layer1."))
            assert value.equal(before[name]) == frozen, name
