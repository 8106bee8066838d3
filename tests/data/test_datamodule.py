from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from deeplab_lit.data import DataError, Folder, Shapes
from deeplab_lit.data.transforms import ScaleRange


def attached(data, world_size=1, global_rank=0, accumulate=1, global_step=0, seed=0):
    """The data module as a trainer would set it up, in one of `world_size` processes."""
    torch.manual_seed(seed)
    data.trainer = SimpleNamespace(
        world_size=world_size,
        global_rank=global_rank,
        accumulate_grad_batches=accumulate,
        global_step=global_step,
        strategy=SimpleNamespace(broadcast=lambda value: value),
    )
    data.setup("fit")
    return data


def shapes(train_size=10, val_size=5, **kwargs):
    kwargs = {"batch_size": 2, "crop_size": 65, "num_workers": 0} | kwargs
    return Shapes(train_size, val_size, **kwargs)


def ids(loader):
    return [id for batch in loader for id in batch["id"]]


def test_training_batches_have_the_crop_size():
    batches = list(attached(shapes(batch_size=4, crop_size=97)).train_dataloader())
    assert len(batches) == 2
    for batch in batches:
        assert batch["image"].shape == (4, 3, 97, 97)
        assert batch["mask"].shape == (4, 97, 97)
        assert batch["image"].dtype == batch["mask"].dtype == torch.uint8
        assert len(batch["id"]) == 4


def test_evaluation_takes_every_image_once_at_native_size(folder_root, write_image, write_mask):
    write_image(folder_root / "images/val/wide.png", size=(20, 50))
    write_mask(folder_root / "labels/val/wide.png", np.zeros((20, 50)))
    data = attached(Folder(str(folder_root), num_workers=0))
    batches = list(data.val_dataloader())
    assert [batch["id"] for batch in batches] == [["0"], ["1"], ["2"], ["wide"]]
    assert [tuple(batch["image"].shape) for batch in batches] == [(1, 3, 24, 32)] * 3 + [
        (1, 3, 20, 50)
    ]
    split = data.split("val")
    for index, batch in enumerate(batches):
        image, mask = split.read(index)
        np.testing.assert_array_equal(batch["image"][0].permute(1, 2, 0), image)
        np.testing.assert_array_equal(batch["mask"][0], mask)


def test_eval_batch_size_and_images_of_different_sizes(folder_root, write_image, write_mask):
    data = attached(Folder(str(folder_root), num_workers=0, eval_batch_size=2))
    assert [len(batch["id"]) for batch in data.val_dataloader()] == [2, 1]
    write_image(folder_root / "images/val/1.png", size=(20, 50))
    write_mask(folder_root / "labels/val/1.png", np.zeros((20, 50)))
    with pytest.raises(DataError, match=r"different sizes.*eval_batch_size 1"):
        list(data.val_dataloader())


@pytest.mark.parametrize("accumulate", [1, 2])
def test_processes_share_training_and_evaluation(accumulate):
    both = [attached(shapes(), 2, rank, accumulate) for rank in range(2)]
    train = [id for data in both for id in ids(data.train_dataloader())]
    assert len(train) == len(set(train)) == 8
    val = [id for data in both for id in ids(data.val_dataloader())]
    assert sorted(val) == [str(1_000_000 + i) for i in range(5)]


def test_training_reads_on_from_the_step_of_the_trainer():
    data = attached(shapes(train_size=7))
    loader = data.train_dataloader()
    whole = []
    for epoch in range(4):
        data.trainer.global_step = 3 * epoch
        whole += list(loader)
    resumed = list(attached(shapes(train_size=7), global_step=5).train_dataloader())
    for one, other in zip(whole[5:], resumed, strict=False):
        assert one["id"] == other["id"]
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["mask"], other["mask"])
    assert len(resumed) == 3
    seen = [id for batch in whole for id in batch["id"]]
    assert len(seen) == 24
    assert [sorted(map(int, seen[i : i + 7])) for i in (0, 7, 14)] == [list(range(7))] * 3


def test_the_seed_of_everything_makes_order_and_crops():
    one, same, other = (
        list(attached(shapes(), seed=seed).train_dataloader()) for seed in (1, 1, 2)
    )
    assert [batch["id"] for batch in one] == [batch["id"] for batch in same]
    assert all(torch.equal(a["image"], b["image"]) for a, b in zip(one, same, strict=True))
    assert [batch["id"] for batch in one] != [batch["id"] for batch in other]


def test_batches_do_not_depend_on_the_number_of_workers():
    kwargs = {"train_size": 6, "color_jitter": 0.2, "scales": ScaleRange(0.5, 1.5)}
    alone, helped = (
        list(attached(shapes(num_workers=n, **kwargs)).train_dataloader()) for n in (0, 2)
    )
    assert len(alone) == 3
    for one, other in zip(alone, helped, strict=True):
        assert one["id"] == other["id"]
        assert torch.equal(one["image"], other["image"])
        assert torch.equal(one["mask"], other["mask"])
        assert other["image"].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("total", "warns"), [(None, False), (12, False), (10, True), (6, True)])
def test_another_total_batch_size_than_meant_is_warned_of(total, warns, recwarn):
    data = attached(shapes(train_size=20, total_batch_size=total), 2, accumulate=3)
    data.train_dataloader()
    told = [str(w.message) for w in recwarn if "total_batch_size" in str(w.message)]
    assert len(told) == warns
    if warns:
        assert "sees 12 images (2 processes × batch_size 2 × accumulate_grad_batches 3)" in told[0]
        assert f"meant for {total}" in told[0]


def test_fewer_images_than_processes_are_refused():
    with pytest.raises(DataError, match="Shapes val has 5 images for 6 processes"):
        attached(shapes(), 6).val_dataloader()
    assert len(ids(attached(shapes(), 5, 4).val_dataloader())) == 1


@pytest.mark.parametrize("name", ["batch_size", "eval_batch_size"])
@pytest.mark.parametrize("value", [0, -1])
def test_bad_batch_size_is_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name} must be at least 1, got {value}"):
        Shapes(**{name: value})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"batch_size": 10**15}, "batch_size must be at most"),
        ({"eval_batch_size": 10**9}, "eval_batch_size must be at most"),
        ({"batch_size": 60_000, "crop_size": 8_000}, "60000 crops of 8000×8000 takes"),
        ({"total_batch_size": 0}, "total_batch_size must be 1 or more"),
        ({"num_workers": 100_000}, "num_workers must be in"),
    ],
)
def test_numbers_that_no_machine_can_serve_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Shapes(**arguments)


def test_arguments_of_the_augmentation_reach_it():
    data = Shapes(crop_size=97, scales=(0.5, 2.0), color_jitter=0.3)
    assert data.transform.crop_size == 97
    assert data.transform.scales == (0.5, 2.0)
    assert data.transform.color_jitter == 0.3
    with pytest.raises(ValueError, match="crop_size"):
        Shapes(crop_size=5)


def test_splits_can_be_chosen():
    data = attached(shapes(train_split="test", val_split="train"))
    assert min(map(int, ids(data.train_dataloader()))) >= 2_000_000
    assert ids(data.val_dataloader()) == [str(i) for i in range(10)]


def test_mask_dir_replaces_the_training_masks_only(folder_root, tmp_path, write_mask):
    for i in range(5):
        write_mask(tmp_path / f"pseudo/{i}.png", np.full((24, 32), 0 if i else 255))
    data = Folder(str(folder_root), void=0, mask_dir=str(tmp_path / "pseudo"), num_workers=0)
    training = data.training()
    assert training.ids == data.split("train").ids
    assert training.num_classes == 2
    masks = [np.unique(training.read(i)[1]).tolist() for i in range(5)]
    assert masks == [[255], [0], [0], [0], [0]]  # class indices: not mapped again
    val, kept = data.split("val"), Folder(str(folder_root), void=0).split("val")
    np.testing.assert_array_equal(val.read(0)[1], kept.read(0)[1])


def test_missing_and_bad_pseudo_labels_are_named(folder_root, tmp_path, write_mask):
    folder = tmp_path / "pseudo"
    data = Folder(str(folder_root), mask_dir=str(folder), num_workers=0)
    for i in (0, 1, 2, 4):
        write_mask(folder / f"{i}.png", np.full((24, 32), 3 if i == 4 else 0))
    with pytest.raises(DataError, match=r"pseudo/3\.png"):
        data.training()
    write_mask(folder / "3.png")
    with pytest.raises(DataError, match=r"pseudo/4\.png: mask value 3, .* 3 classes"):
        data.preflight("fit")
    data.preflight("validate")


def test_mask_dir_needs_mask_files_to_replace(tmp_path):
    with pytest.raises(DataError, match="mask_dir: Shapes has no mask files"):
        Shapes(mask_dir=str(tmp_path)).training()


@pytest.mark.parametrize(("split", "refusing"), [("train", ["fit"]), ("val", ["fit", "validate"])])
def test_preflight_checks_the_splits_of_the_stage(folder_root, split, refusing):
    (folder_root / f"labels/{split}/1.png").write_text("broken")
    data = Folder(str(folder_root), num_workers=0)
    for stage in ("fit", "validate"):
        if stage in refusing:
            with pytest.raises(DataError, match=rf"labels/{split}/1\.png: cannot be read"):
                data.preflight(stage)
        else:
            data.preflight(stage)


def test_full_check_finds_what_the_quick_one_may_miss(folder_root, write_image, write_mask):
    for i in range(100, 200):
        write_image(folder_root / f"images/val/{i}.png", size=(4, 4))
        write_mask(folder_root / f"labels/val/{i}.png", np.zeros((4, 4)) + 7 * (i != 100))
    (folder_root / "labels/val/0.png").write_bytes((folder_root / "labels/val/1.png").read_bytes())
    with pytest.raises(DataError, match=r"99 of 103 images checked in Folder val"):
        Folder(str(folder_root), check="full", num_workers=1).preflight("validate")


class Recorder(LightningModule):
    """Notes which images it sees."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.trained, self.validated = [], []

    def training_step(self, batch, index):
        self.trained.append((batch["id"], batch["image"].clone()))
        return self.weight.sum()

    def validation_step(self, batch, index):
        self.validated += batch["id"]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def fit(folder, ckpt_path=None):
    """15 optimizer steps, 5 an epoch; a checkpoint after each."""
    seed_everything(4)
    model = Recorder()
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        max_steps=15,
        accumulate_grad_batches=2,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1),
    )
    trainer.fit(model, shapes(train_size=21), ckpt_path=ckpt_path)
    return model


@pytest.mark.filterwarnings("ignore")  # of Lightning's, about workers and logging
def test_lightning_trains_the_stream_and_resumes_in_it(tmp_path):
    whole = fit(tmp_path / "whole")
    seen = [int(id) for batch, _ in whole.trained for id in batch]
    assert len(seen) == 15 * 4
    assert [sorted(seen[:21]), sorted(seen[21:42])] == [list(range(21))] * 2
    assert whole.validated == [str(1_000_000 + i) for i in range(5)] * 3

    for step in (3, 5, 12):  # in the middle of an epoch, and at its end
        resumed = fit(tmp_path / f"from{step}", tmp_path / f"whole/step={step}.ckpt")
        tail = whole.trained[2 * step :]
        assert [batch for batch, _ in resumed.trained] == [batch for batch, _ in tail]
        for (_, one), (_, other) in zip(resumed.trained, tail, strict=True):
            assert torch.equal(one, other)
