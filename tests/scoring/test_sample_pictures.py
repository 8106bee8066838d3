from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import WandbLogger
from PIL import Image

from deeplab_lit.data import Shapes
from deeplab_lit.scoring import sample_pictures as module_under_test
from deeplab_lit.scoring.sample_pictures import SamplePictures


class FakeWandb(WandbLogger):
    """Is taken for W&B's logger, and keeps what it is given."""

    def __init__(self):
        self.images, self.tables = [], []

    experiment = name = version = save_dir = None

    def log_image(self, key, images, step, caption, masks):
        self.images.append((key, step, images, caption, masks))

    def log_table(self, key, columns, data, step):
        self.tables.append((key, step, columns, data))

    def log_metrics(self, *args, **kwargs): ...

    log_hyperparams = log_graph = save = finalize = after_save_checkpoint = log_metrics


@pytest.fixture
def shown(monkeypatch):
    """What each picture is made from."""
    calls, comparison = [], module_under_test.comparison

    def keep(samples, *args):
        calls.append(samples)
        return comparison(samples, *args)

    monkeypatch.setattr(module_under_test, "comparison", keep)
    return calls


def test_validate_writes_a_picture(make_module, make_data, make_trainer, tmp_path):
    trainer = make_trainer(callbacks=[SamplePictures(tmp_path)])
    trainer.validate(make_module(), make_data(), verbose=False)
    with Image.open(tmp_path / "predictions.png") as picture:
        assert picture.width == 2 * 3 * 240
        assert picture.height > 3 * 240  # five square samples, two in a row


def test_the_same_images_are_shown_each_time(shown, make_module, make_data, make_trainer, tmp_path):
    trainer = make_trainer(callbacks=[SamplePictures(tmp_path, 2)], val_check_interval=1)
    trainer.fit(make_module(lr=0.1), make_data())
    assert len(shown) == 4
    split = Shapes(val_size=5, num_workers=0).split("val")
    for samples in shown:
        assert len(samples) == 2
        for (image, truth, _), index in zip(samples, (0, 4), strict=True):  # spread over the set
            expected = split.read(index)
            np.testing.assert_array_equal(image, expected[0])
            np.testing.assert_array_equal(truth, expected[1])
    first, last = (np.stack([sample[2] for sample in shown[i]]) for i in (0, -1))
    assert (first != last).any()  # the predictions are new


def test_the_picture_holds_the_prediction(shown, make_module, make_data, make_trainer, tmp_path):
    module = make_module()
    trainer = make_trainer(callbacks=[SamplePictures(tmp_path, 8)])
    trainer.validate(module, make_data(), verbose=False)
    batches = list(trainer.val_dataloaders)
    assert len(shown[0]) == 5
    for (_, _, prediction), batch in zip(shown[0], batches, strict=True):
        expected = module.net.eval()(batch["image"]).argmax(1)[0].numpy()
        np.testing.assert_array_equal(prediction, expected)


@pytest.mark.parametrize(("every", "steps"), [(1, [0, 1, 2, 3]), (3, [0, 3]), (2, [0, 2, 3])])
def test_wandb_is_sent_pictures_now_and_then_and_at_the_end(
    every, steps, make_module, make_data, make_trainer, tmp_path
):
    wandb = FakeWandb()
    pictures = SamplePictures(tmp_path, 2, every)
    trainer = make_trainer(callbacks=[pictures], logger=wandb, val_check_interval=1)
    trainer.fit(make_module(), make_data())
    assert [step for _, step, *_ in wandb.images] == steps
    for name in ("val/iou_by_class", "val/confusion"):
        assert [step for key, step, *_ in wandb.tables if key == name] == steps


def test_wandb_is_sent_images_with_masks_and_tables(make_module, make_data, make_trainer, tmp_path):
    wandb, module = FakeWandb(), make_module()
    trainer = make_trainer(callbacks=[SamplePictures(tmp_path, 2)], logger=wandb)
    trainer.validate(module, make_data(), verbose=False)
    ((key, _, images, captions, masks),) = wandb.images
    assert key == "val/images"
    assert [image.shape for image in images] == [(161, 161, 3)] * 2
    assert captions == ["1000000", "1000004"]
    assert [set(mask) for mask in masks] == [{"truth", "prediction"}] * 2
    labels = masks[0]["truth"]["class_labels"]
    assert labels == {**dict(enumerate(Shapes.classes)), 255: "void"}
    (key, _, columns, rows), confusion = wandb.tables
    assert (key, columns) == ("val/iou_by_class", ["class", "iou"])
    assert [name for name, _ in rows] == list(Shapes.classes)
    np.testing.assert_array_equal([iou for _, iou in rows], module.scores.iou)
    key, _, columns, rows = confusion
    assert (key, columns) == ("val/confusion", ["true", "predicted", "pixels"])
    wires = [(predicted, pixels) for true, predicted, pixels in rows if true == "wire"]
    assert [name for name, _ in wires] == list(Shapes.classes)
    index = list(Shapes.classes).index("wire")
    np.testing.assert_array_equal([n for _, n in wires], module.scores.confusion[index])


def test_the_check_before_training_leaves_no_picture(
    make_module, make_data, make_trainer, tmp_path
):
    trainer = make_trainer(
        callbacks=[SamplePictures(tmp_path)],
        num_sanity_val_steps=2,
        max_steps=1,
        limit_val_batches=2,
        val_check_interval=2,
    )
    trainer.fit(make_module(), make_data())
    assert not (tmp_path / "predictions.png").exists()


def test_images_of_several_sizes_are_filled_up_to_one_size():
    wandb, pictures = FakeWandb(), SamplePictures(None)
    sizes = [(4, 6), (5, 5), (4, 6)]
    zeros = [np.zeros(size, np.uint8) for size in sizes]
    images = [np.full((*size, 3), 9, np.uint8) for size in sizes]
    pictures.samples = list(zip("012", images, zeros, [a + 1 for a in zeros], strict=True))
    module = SimpleNamespace(
        scores=SimpleNamespace(iou=torch.tensor([0.5]), confusion=torch.tensor([[9]]))
    )
    pictures.refined = {"1": zeros[1] + 2}
    pictures._log(wandb, ["sky"], module, 7)
    ((key, _, images, captions, masks),) = wandb.images
    assert (key, captions) == ("val/images", ["0", "1", "2"])
    for (height, width), image, mask in zip(sizes, images, masks, strict=True):
        assert image.shape == (5, 6, 3)
        assert (image[:height, :width] == 9).all()
        assert image.sum() == 9 * 3 * height * width
        for name, label in (("truth", 0), ("prediction", 1)):
            labels = mask[name]["mask_data"]
            assert (labels[:height, :width] == label).all()
            assert (labels == 255).sum() == 30 - height * width
            assert labels.dtype == np.uint8
    refined = ["after_crf" in mask for mask in masks]
    assert refined == [False, True, False]
    assert set(masks[1]["after_crf"]["mask_data"].flat) == {2, 255}
