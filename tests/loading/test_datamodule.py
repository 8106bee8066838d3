from shutil import copy, copytree, rmtree
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from deeplab_lit.cli.checks import images_seen
from deeplab_lit.data import (
    Cityscapes,
    DataError,
    Folder,
    Images,
    SegmentationData,
    Shapes,
    Split,
    folder,
)
from deeplab_lit.data.transforms import ScaleRange, TrainTransform, resized
from deeplab_lit.loading.datamodule import DataModule


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


def module(train, val=None, unlabeled=None, **loader):
    loader = {"batch_size": 2, "crop_size": 65, "num_workers": 0} | loader
    return DataModule(train, val, unlabeled, **loader)


def shapes(train_size=10, val_size=5, **loader):
    return module(Shapes(train_size, val_size), **loader)


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
    data = attached(module(Folder(str(folder_root))))
    batches = list(data.val_dataloader())
    assert [batch["id"] for batch in batches] == [["0"], ["1"], ["2"], ["wide"]]
    assert [tuple(batch["image"].shape) for batch in batches] == [(1, 3, 24, 32)] * 3 + [
        (1, 3, 20, 50)
    ]
    split = data.validation()
    for index, batch in enumerate(batches):
        image, mask = split.read(index)
        np.testing.assert_array_equal(batch["image"][0].permute(1, 2, 0), image)
        np.testing.assert_array_equal(batch["mask"][0], mask)


def test_eval_batch_size_and_images_of_different_sizes(folder_root, write_image, write_mask):
    data = attached(module(Folder(str(folder_root)), eval_batch_size=2))
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
        DataModule(Shapes(), **{name: value})


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
        DataModule(Shapes(), **arguments)


def test_arguments_of_the_augmentation_reach_it():
    data = DataModule(Shapes(), crop_size=97, scales=(0.5, 2.0), color_jitter=0.3)
    assert data.transform.crop_size == 97
    assert data.transform.scales == (0.5, 2.0)
    assert data.transform.color_jitter == 0.3
    with pytest.raises(ValueError, match="crop_size"):
        DataModule(Shapes(), crop_size=5)


def test_splits_can_be_chosen():
    data = attached(module(Shapes(10, 5, train_split="test", val_split="train")))
    assert min(map(int, ids(data.train_dataloader()))) >= 2_000_000
    assert ids(data.val_dataloader()) == [str(i) for i in range(10)]


def test_mask_dir_replaces_the_training_masks_only(folder_root, tmp_path, write_mask):
    for i in range(5):
        write_mask(tmp_path / f"pseudo/{i}.png", np.full((24, 32), 0 if i else 255))
    data = Folder(str(folder_root), void=0, mask_dir=str(tmp_path / "pseudo"))
    training = data.training()
    assert training.ids == data.split("train").ids
    assert training.num_classes == 2
    masks = [np.unique(training.read(i)[1]).tolist() for i in range(5)]
    assert masks == [[255], [0], [0], [0], [0]]  # class indices: not mapped again
    val, kept = data.split("val"), Folder(str(folder_root), void=0).split("val")
    np.testing.assert_array_equal(val.read(0)[1], kept.read(0)[1])


def test_missing_and_bad_pseudo_labels_are_named(folder_root, tmp_path, write_mask):
    folder = tmp_path / "pseudo"
    data = Folder(str(folder_root), mask_dir=str(folder))
    for i in (0, 1, 2, 4):
        write_mask(folder / f"{i}.png", np.full((24, 32), 3 if i == 4 else 0))
    with pytest.raises(DataError, match=r"pseudo/3\.png"):
        data.training()
    write_mask(folder / "3.png")
    with pytest.raises(DataError, match=r"pseudo/4\.png: mask value 3, .* 3 classes"):
        module(data).preflight("fit")
    module(data).preflight("validate")


def test_drawn_images_need_their_masks_too(tmp_path):
    with pytest.raises(DataError, match=r"4 of 8 files are missing: .*0\.png"):
        Shapes(train_size=4, mask_dir=str(tmp_path)).training()


@pytest.mark.parametrize(("split", "refusing"), [("train", ["fit"]), ("val", ["fit", "validate"])])
def test_preflight_checks_the_splits_of_the_stage(folder_root, split, refusing):
    (folder_root / f"labels/{split}/1.png").write_text("broken")
    data = module(Folder(str(folder_root)))
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
        module(Folder(str(folder_root)), check="full", num_workers=1).preflight("validate")


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


def test_a_split_is_looked_for_once(folder_root, monkeypatch):
    names, find = [], Folder.split
    monkeypatch.setattr(Folder, "split", lambda data, name: names.append(name) or find(data, name))
    data = attached(module(Folder(str(folder_root))))
    data.preflight("fit")
    data.in_words()
    for _ in range(2):
        data.train_dataloader()
        data.val_dataloader()
    assert names == ["train", "val"]


class Reversed(Shapes):
    """Shapes, of which the label files count the classes backward."""

    classes = dict(reversed(Shapes.classes.items()))

    def split(self, name):
        return ReversedSplit(super().split(name))


class ReversedSplit(Split):
    def __init__(self, split):
        self.split, self.ids = split, split.ids

    def read(self, index):
        image, mask = self.split.read(index)
        return image, np.where(mask == 255, 255, 6 - mask).astype(np.uint8)


def test_the_classes_of_another_set_are_brought_into_the_order_of_training():
    """Masks of disc (1), square (2) and void count down from 6 in the other set: 5, 4, 255."""
    plain, mapped = Shapes(10, 3), module(Shapes(10, 3), Reversed(10, 3))
    for index in range(3):
        image, mask = mapped.validation().read(index)
        np.testing.assert_array_equal(image, plain.validation().read(index)[0])
        np.testing.assert_array_equal(mask, plain.validation().read(index)[1])
    assert list(mapped.classes) == list(Shapes.classes)
    assert mapped.validation().label_values(7) == {index: 6 - index for index in range(7)}
    assert mapped.preflight("fit") == module(Shapes(10, 3)).preflight("fit")
    batches = attached(mapped).val_dataloader()
    assert all((batch["mask"] != 254).all() for batch in batches)


def test_other_classes_to_validate_on_are_refused_by_name(folder_root):
    with pytest.raises(DataError, match=r"^Folder has other classes .* only there; .*disc"):
        DataModule(Shapes(), Folder(str(folder_root)))


def test_two_sets_are_both_checked_and_named(folder_root, write_mask):
    data = module(Reversed(10, 2), Shapes(10, 3))
    assert data.in_words() == (
        "Reversed: 10 training images (train), Shapes: 3 validation images (val), 7 classes"
    )
    night = module(Shapes(10, 2, style="night"), Shapes(10, 3), unlabeled=Shapes(4, 1))
    assert night.in_words() == (
        "Shapes/night: 10 training images (train), Shapes: 3 validation images (val), "
        "Shapes: 4 unlabeled images, 7 classes"
    )
    write_mask(folder_root / "labels/val/1.png", np.full((24, 32), 77))
    both = module(Folder(str(folder_root)), Folder(str(folder_root), val_split="train"))
    both.preflight("fit")
    other_way = module(Folder(str(folder_root), val_split="train"), Folder(str(folder_root)))
    with pytest.raises(DataError, match=r"labels/val/1\.png: mask value 77"):
        other_way.preflight("fit")


@pytest.fixture
def photos(tmp_path, write_image):
    for i in range(7):
        write_image(tmp_path / f"photos/{i % 2}/{i}.jpg", seed=i)
    (tmp_path / "photos/notes.txt").touch()
    return Images(str(tmp_path / "photos"))


def test_unlabeled_images_are_a_second_part_of_the_batch(photos):
    alone = list(attached(shapes()).train_dataloader())
    batches = list(attached(module(Shapes(10, 5), unlabeled=photos)).train_dataloader())
    assert len(batches) == 5
    for batch, labeled in zip(batches, alone, strict=True):  # labeled images are those of before
        assert batch["id"] == labeled["id"]
        assert torch.equal(batch["image"], labeled["image"])
        assert torch.equal(batch["mask"], labeled["mask"])
        assert set(batch["unlabeled"]) == {"image", "id"}
        assert batch["unlabeled"]["image"].shape == (2, 3, 65, 65)
        assert batch["unlabeled"]["image"].dtype == torch.uint8
    seen = [id for batch in batches for id in batch["unlabeled"]["id"]]
    assert sorted(seen[:7]) == sorted(f"{i % 2}/{i}.jpg" for i in range(7))


def test_the_unlabeled_stream_goes_on_where_training_stands(photos):
    data = attached(module(Shapes(10, 5), unlabeled=photos))
    loader, whole = data.train_dataloader(), []
    for epoch in range(2):
        data.trainer.global_step = 5 * epoch
        whole += list(loader)
    data = attached(module(Shapes(10, 5), unlabeled=photos), global_step=3)
    for one, other in zip(whole[3:], data.train_dataloader(), strict=False):
        assert one["unlabeled"]["id"] == other["unlabeled"]["id"]
        assert torch.equal(one["unlabeled"]["image"], other["unlabeled"]["image"])


def test_processes_share_the_unlabeled_images(photos):
    both = [attached(module(Shapes(6, 5), unlabeled=photos, batch_size=1), 2, i) for i in (0, 1)]
    seen = [b["unlabeled"]["id"][0] for data in both for b in data.train_dataloader()]
    assert len(set(seen)) == len(seen) == 6


def test_the_images_of_a_labeled_set_are_taken_without_their_masks(folder_root):
    (folder_root / "labels/train/1.png").write_text("broken")
    data = attached(module(Shapes(10, 5), unlabeled=Folder(str(folder_root))))
    data.preflight("fit")
    assert len(list(data.train_dataloader())) == 5


def test_unlabeled_images_are_checked_before_the_first_step(photos, tmp_path):
    (tmp_path / "photos/0/2.jpg").write_text("broken")
    with pytest.raises(DataError, match=r"photos/0/2\.jpg: cannot be read as an image"):
        module(Shapes(10, 5), unlabeled=photos).preflight("fit")
    module(Shapes(10, 5), unlabeled=photos).preflight("validate")
    with pytest.raises(DataError, match=r"Images has no labels; it is for --unlabeled_data"):
        module(photos).preflight("fit")
    with pytest.raises(DataError, match="no images there"):
        module(Shapes(), unlabeled=Images(str(tmp_path / "none"))).preflight("fit")


def test_masks_of_mask_dir_that_hold_indices_are_told_with_another_set_too(
    folder_root, tmp_path, write_mask
):
    (folder_root / "classes.txt").write_text("a = 10\nb = 20\n")
    for path in folder_root.glob("labels/*/*.png"):
        write_mask(path, np.resize([10, 20], (24, 32)))
    for i in range(5):
        write_mask(tmp_path / f"pseudo/{i}.png", np.resize([0, 1], (24, 32)))
    root = str(folder_root)
    for val in (None, Folder(root)):
        data = module(Folder(root, mask_dir=str(tmp_path / "pseudo")), val)
        told = [line for line in data.preflight("fit") if "class indices" in line]
        assert len(told) == 1
        assert "a is 0 here and 10 there" in told[0]


def test_images_behind_a_link_to_the_validation_folder_are_counted(folder_root):
    (folder_root / "images/train").rename(folder_root / "images/before")
    (folder_root / "images/train").symlink_to(folder_root / "images/val")
    data = module(Folder(str(folder_root)))
    assert data.trained_in_validation() == 3
    (folder_root / "images/train").unlink()
    (folder_root / "images/before").rename(folder_root / "images/train")
    assert module(Folder(str(folder_root))).trained_in_validation() == 0


class Anew(Shapes):
    """Shapes whose ids mean nothing, and that has no files."""

    id_space = None


def test_a_split_trained_and_validated_on_is_counted_without_names_or_files():
    assert module(Anew(10, 3, val_split="train")).trained_in_validation() == 10
    assert module(Anew(10, 3)).trained_in_validation() == 0


def test_two_data_sets_of_one_class_share_no_images(folder_root, tmp_path, write_image):
    def overlap(first, second):
        return module(first, second).trained_in_validation()

    assert overlap(Shapes(10), Shapes(10, val_split="train")) == 10
    assert overlap(Shapes(10), Shapes(10, draw_seed=1, val_split="train")) == 0
    assert overlap(Shapes(10), Shapes(10, max_disc=25, val_split="train")) == 0

    class Numbered(Folder):
        id_space = SegmentationData.id_space

    copytree(folder_root, tmp_path / "other")
    here, there = str(folder_root), str(tmp_path / "other")
    assert overlap(Numbered(here), Numbered(here, val_split="train")) == 5
    assert overlap(Numbered(here), Numbered(there, val_split="train")) == 0


def test_an_official_set_is_the_same_in_every_copy(city_root, tmp_path):
    copytree(city_root, tmp_path / "copy")
    val = Cityscapes(str(tmp_path / "copy"), val_split="train")
    assert module(Cityscapes(str(city_root)), val).trained_in_validation() > 0


def test_a_folder_of_images_is_looked_through_once(photos, monkeypatch):
    looked, find = [], folder.files_below
    monkeypatch.setattr(folder, "files_below", lambda root: looked.append(root) or find(root))
    data = attached(module(Shapes(10, 5), unlabeled=photos))
    data.preflight("fit")
    data.in_words()
    data.train_dataloader()
    assert len(looked) == 1


def test_unlabeled_images_of_a_folder_need_no_masks(folder_root):
    rmtree(folder_root / "labels")
    data = module(Shapes(10, 5), unlabeled=Folder(str(folder_root)))
    data.preflight("fit")
    assert "unlabeled image" in data.in_words()


def test_unlabeled_images_without_masks_are_told_the_way():
    class Paired(Shapes):
        """Cannot list its images without their masks, which are missing."""

        def split(self, name):
            raise DataError("masks are missing.")

    data = module(Shapes(10, 5), unlabeled=Paired(10, 5))
    with pytest.raises(DataError, match=r"--unlabeled_data Images --unlabeled_data\.root DIR"):
        data.preflight("fit")


def test_a_target_domain_of_images_alone_needs_no_label_files(city_root):
    rmtree(city_root / "gtFine")
    data = attached(module(Shapes(10, 5), unlabeled=Cityscapes(str(city_root))))
    data.preflight("fit")
    assert "Cityscapes: 3 unlabeled images" in data.in_words()
    seen = [id for batch in data.train_dataloader() for id in batch["unlabeled"]["id"]]
    assert set(seen) == {"aachen_000000_000019", "aachen_000001_000019", "zurich_000000_000019"}


def sized(batch):
    return [tuple(part["image"].shape[-2:]) for part in (batch, batch.get("unlabeled", batch))]


def test_labeled_and_unlabeled_images_have_sizes_of_their_own(photos):
    sizes = {"crop_size": (40, 72), "resize": (48, 80)}
    theirs = {"unlabeled_crop_size": 33, "unlabeled_resize": (36, 70)}
    for options, expected in (
        (sizes, [(40, 72), (40, 72)]),
        (sizes | theirs, [(40, 72), (33, 33)]),
        ({"crop_size": 65} | theirs, [(65, 65), (33, 33)]),
        (sizes | {"unlabeled_resize": (41, 80)}, [(40, 72), (40, 72)]),
        (sizes | theirs | {"unlabeled_crop_size": "whole"}, [(40, 72), (36, 70)]),
    ):
        options = {"scales": (1.0,), **options}
        data = attached(module(Shapes(10, 5), unlabeled=photos, **options))
        assert sized(next(iter(data.train_dataloader()))) == expected


def test_a_resized_batch_is_that_of_resized_images():
    data = attached(shapes(resize=(70, 90), resize_filter="bilinear", mirror=False))
    batch = next(iter(data.train_dataloader()))
    split = Shapes(10, 5).training()
    for image, mask, id in zip(batch["image"], batch["mask"], batch["id"], strict=True):
        pixels, labels = split.read(split.ids.index(id))
        position = batch["id"].index(id)
        transform = TrainTransform(65, (0.5, 0.75, 1.0, 1.25, 1.5), mirror=False)
        rng = np.random.default_rng((data.seed, position, 2))
        small = resized(pixels, (70, 90), "bilinear"), resized(labels, (70, 90), "nearest")
        expected = transform(*small, rng)
        np.testing.assert_array_equal(image.permute(1, 2, 0), expected[0])
        np.testing.assert_array_equal(mask, expected[1])


def test_whole_images_share_a_batch_where_they_have_one_size(folder_root, write_image, write_mask):
    whole = {"crop_size": "whole", "scales": (1.0,)}
    data = attached(module(Folder(str(folder_root)), **whole))
    data.preflight("fit")
    assert sized(next(iter(data.train_dataloader())))[0] == (24, 32)
    write_image(folder_root / "images/train/wide.png", size=(20, 50))
    write_mask(folder_root / "labels/train/wide.png", np.zeros((20, 50)))
    data = attached(module(Folder(str(folder_root)), **whole))
    with pytest.raises(DataError, match=r"2 sizes or more.*--loader\.resize .*batch_size 1"):
        data.preflight("fit")
    data.preflight("validate")
    with pytest.raises(DataError, match=r"different sizes.*in training --loader\.batch_size 1"):
        list(data.train_dataloader())
    for options in ({"batch_size": 1}, {"resize": (40, 60)}):
        data = attached(module(Folder(str(folder_root)), **whole, **options))
        data.preflight("fit")
        assert len(list(data.train_dataloader())) == 6 // data.batch_size
    data = module(Shapes(10, 5), unlabeled=Folder(str(folder_root)), **whole)
    with pytest.raises(DataError, match=r"unlabeled Folder .*--loader\.unlabeled_resize"):
        data.preflight("fit")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_size": "whole"}, r"crop_size whole with several scales .*batch_size 2"),
        ({"crop_size": "whole", "scales": ScaleRange(0.5, 1)}, "crop_size whole with several"),
        ({"crop_size": (100, 65), "resize": (64, 128)}, r"crop_size \[100, 65\] .* larger than"),
        ({"crop_size": (33, 16)}, r"crop_size must be .* got \[33, 16\]"),
        ({"unlabeled_crop_size": 20}, "^of unlabeled images, crop_size must be"),
        ({"crop_size": 33, "unlabeled_resize": (33, 20)}, "^of unlabeled images, resize must be"),
        ({"unlabeled_resize": (40, 40)}, r"^of unlabeled images, crop_size \[65, 65\] .* larger"),
    ],
)
def test_sizes_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        module(Shapes(10, 5), **options)


def test_whole_images_at_several_scales_go_one_by_one():
    data = attached(shapes(crop_size="whole", batch_size=1))
    assert len({sized(batch)[0] for batch in data.train_dataloader()}) > 1


@pytest.mark.parametrize(
    ("sizes", "shown"),
    [
        ({"crop_size": (4000, 8000)}, "of 8000×4000 takes"),
        (
            {"crop_size": "whole", "resize": (4000, 8000), "scales": (0.5,)},
            "of 4000×2000 takes",
        ),
        (
            {"crop_size": (4000, 8000), "unlabeled_crop_size": 100},
            "of 8000×4000 and as many of 100×100 takes",
        ),
    ],
)
def test_batches_beyond_memory_are_refused_whatever_their_shape(photos, sizes, shown):
    with pytest.raises(ValueError, match=f"a batch of 60000 crops {shown}"):
        DataModule(Shapes(), None, photos if "unlabeled" in str(sizes) else None,
                   batch_size=60_000, **sizes)  # fmt: skip


@pytest.fixture
def pseudo_labeled(tmp_path, photos, write_mask):
    """The photos with masks as predict names them, which hold the number of the image."""
    for i in range(7):
        write_mask(tmp_path / f"pseudo/{i % 2}/{i}.png", np.full((24, 32), i if i < 6 else 255))
    return Images(str(tmp_path / "photos"), mask_dir=str(tmp_path / "pseudo"))


def test_pseudo_labels_are_in_the_unlabeled_part_of_the_batch(photos, pseudo_labeled):
    plain = attached(module(Shapes(10, 5), unlabeled=photos)).train_dataloader()
    data = attached(module(Shapes(10, 5), unlabeled=pseudo_labeled))
    data.preflight("fit")
    for batch, without in zip(data.train_dataloader(), plain, strict=True):
        assert "mask" not in without["unlabeled"]
        part = batch["unlabeled"]
        assert torch.equal(part["image"], without["unlabeled"]["image"])
        assert part["mask"].shape == (2, 65, 65)
        assert part["mask"].dtype == torch.uint8
        for id, mask in zip(part["id"], part["mask"], strict=True):
            number = int(id.rpartition("/")[2].partition(".")[0])
            assert set(mask.unique().tolist()) <= {number if number < 6 else 255, 255}
    summary = data.unlabeled.pseudo_labels(0)
    assert summary.images.tolist() == [1, 1, 1, 1, 1, 1, 0]
    assert summary.all_void == 1


def test_pseudo_labels_of_unlabeled_images_are_checked(tmp_path, pseudo_labeled, write_mask):
    write_mask(tmp_path / "pseudo/0/2.png", np.full((24, 32), 7))
    data = module(Shapes(10, 5), unlabeled=pseudo_labeled)
    with pytest.raises(DataError, match=r"pseudo/0/2\.png: mask value 7, .* 7 classes"):
        data.preflight("fit")
    data.preflight("validate")
    (tmp_path / "pseudo/1/3.png").unlink()
    with pytest.raises(DataError, match=r"1 of 14 files are missing: .*3"):
        module(Shapes(10, 5), unlabeled=pseudo_labeled).preflight("fit")


def test_pseudo_labels_of_other_classes_are_refused_and_images_alone_are_not(folder_root, tmp_path):
    other = Folder(str(folder_root), mask_dir=str(tmp_path))
    with pytest.raises(DataError, match=r"mask_dir .*Folder has other classes than are trained"):
        module(Shapes(10, 5), unlabeled=other)
    with pytest.raises(DataError, match=r"mask_dir .*index 0 is eye in Reversed, but background"):
        module(Shapes(10, 5), unlabeled=Reversed(10, 5, mask_dir=str(tmp_path)))
    for unlabeled in (Folder(str(folder_root)), Reversed(10, 5)):
        module(Shapes(10, 5), unlabeled=unlabeled).preflight("fit")


def test_pseudo_labels_resume_with_their_images(pseudo_labeled):
    def batches(step):
        data = module(Shapes(10, 5), unlabeled=pseudo_labeled)
        return list(attached(data, global_step=step).train_dataloader())

    one, other = batches(0)[2]["unlabeled"], batches(2)[0]["unlabeled"]
    assert one["id"] == other["id"]
    assert torch.equal(one["mask"], other["mask"])


def test_masks_of_unlabeled_images_that_are_the_truth_of_the_scored_ones_are_found(
    folder_root, tmp_path, write_mask
):
    for file in (folder_root / "labels/val").glob("*.png"):
        (tmp_path / "pseudo").mkdir(exist_ok=True)
        copy(file, tmp_path / "pseudo")
    source = Folder(root=str(folder_root))
    masks = {"mask_dir": str(tmp_path / "pseudo")}
    images = Images(str(folder_root / "images/val"), **masks)
    for target in (images, Folder(root=str(folder_root), train_split="val", **masks)):
        assert module(source, None, target).truths_in_masks() == 3
    found = images_seen(module(source, None, images))
    assert found == {"validation_images_unlabeled": 3, "validation_images_trained_on": 3}
    assert module(source, None, Images(str(folder_root / "images/val"))).truths_in_masks() == 0
    write_mask(tmp_path / "pseudo/1.png", np.zeros((24, 32)))
    images = Images(str(folder_root / "images/val"), **masks)
    assert module(source, None, images).truths_in_masks() == 0
    assert "validation_images_trained_on" not in images_seen(module(source, None, images))


@pytest.fixture
def listed(tmp_path):
    path = tmp_path / "92/labeled.txt"
    path.parent.mkdir()
    path.write_text("1\n3\n4\n")
    return str(path)


def test_a_list_and_its_rest_are_trained_on_apart_and_validated_on_whole(listed):
    data = module(Shapes(10, 5, ids=listed), unlabeled=Shapes(10, 5, all_but=listed), batch_size=1)
    assert data.in_words() == (
        "Shapes: 3 training images (train, ids 92/labeled.txt), 5 validation images (val), "
        "Shapes: 7 unlabeled images, 7 classes"
    )
    assert data.preflight("fit") == []
    labeled, unlabeled = set(), set()
    for batch in attached(data).train_dataloader():
        labeled.update(batch["id"])
        unlabeled.update(batch["unlabeled"]["id"])
    assert labeled == {"1", "3", "4"}
    assert len(unlabeled) == 3
    assert not unlabeled & labeled
    assert len(ids(data.val_dataloader())) == 5


def test_a_list_or_masks_for_the_images_to_validate_on_are_refused(listed):
    with pytest.raises(DataError, match=r"--val_data\.ids selects images to train on"):
        module(Shapes(10, 5), Shapes(10, 5, ids=listed))
    with pytest.raises(DataError, match=r"--val_data\.mask_dir: its masks are those of images to"):
        module(Shapes(10, 5), Shapes(10, 5, mask_dir="masks"))
