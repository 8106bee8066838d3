"""Check that options, checkpoint and data agree, before the first image."""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import torch
from jsonargparse import Namespace

from deeplab_lit.cli.other_views import as_list
from deeplab_lit.cli.parser import UsageError
from deeplab_lit.data import DataError, SegmentationData
from deeplab_lit.data.selection import same_list_changed, without_list
from deeplab_lit.loading import DataModule
from deeplab_lit.network.deeplab import default_settings
from deeplab_lit.network.weights.load import WeightsError
from deeplab_lit.network.weights.start import (
    are_generic,
    check_order,
    differences,
    differing,
)
from deeplab_lit.runs.provenance import UNKNOWN, Provenance
from deeplab_lit.text import plural, say, with_short_hashes
from deeplab_lit.training.schedule import policy_steps
from deeplab_lit.types import Classes

Checkpoint = Mapping[str, Any]
Range = tuple[str, Callable[[Any], bool]]  # what a value may be, in words and as a test
SEEN = "validation_split_trained_on"  # in results.json
SHARDING = re.compile("fsdp|deepspeed|model_?parallel", re.IGNORECASE)
NOT_SHARDED = (
    "which cuts the network into pieces that all processes must put together for each batch; but "
    "here each validation image is seen by one process, so their batches differ in number and they "
    "would wait for each other for ever. Use --trainer.strategy ddp: the network is small "
    "(ResNet-101: 0.5 GB with gradients and momentum). What fills a GPU are activations: "
    "--model.gradient_checkpointing true, --trainer.precision bf16-mixed, a smaller "
    "--loader.batch_size"
)
MOST_PROCESSES = max(64, os.cpu_count() or 1)  # on one machine


def check_training(options: Namespace, *, manual: bool = False) -> None:
    """Refuse a training without an end, and options that would spoil its validations or files.

    Args:
        options: of `fit`, parsed.
        manual: the module steps its optimizers itself, for which Lightning does not accumulate.

    Raises:
        UserError: says which.
    """
    trainer = options.trainer
    if trainer.max_steps in (-1, 0) and trainer.max_epochs in (None, -1, 0):
        raise UsageError(
            "the run must know when training ends: set --trainer.max_steps or --trainer.max_epochs"
        )
    policy_steps(options.get("model.schedule_steps"), trainer.max_steps)  # -1: not known yet
    for name, unused in (("accumulate_grad_batches", (None, 1)), ("gradient_clip_val", (None, 0))):
        if manual and trainer[name] not in unused:
            raise UsageError(
                f"--trainer.{name} is {trainer[name]}, but this --model steps its optimizers "
                "itself, batch by batch, where Lightning does not do that: leave it out"
            )
    # a cache would keep the first validation's probabilities
    for name in ("cache_dir", "trimap"):
        if options.eval[name] is not None:
            raise UsageError(
                f"--eval.{name} is for validate; leave it out of fit, and of its configurations"
            )
    for name in ("unlabeled_crop_size", "unlabeled_resize"):
        if options.loader[name] is not None and options.unlabeled_data is None:
            raise UsageError(
                f"--loader.{name} is for the images of --unlabeled_data, which is not given"
            )
    if options.checkpoint.dirpath is not None:
        raise UsageError(
            f"--checkpoint.dirpath is {options.checkpoint.dirpath}: checkpoints lie in their run's "
            "folder, where --ckpt_path last finds them. Another place for whole runs is --runs_dir"
        )


def check_trainer(options: Namespace, *, validates: bool = False) -> None:
    """Refuse what Lightning would take and then stumble over, or count on for ever.

    Args:
        options: of `fit` or `validate`, parsed.
        validates: nothing is trained, so there must be something to validate on.

    Raises:
        UsageError: says which option, what it is and what it may be.
    """
    at_least_one: Range = "a whole number from 1 up", lambda x: x >= 1
    ranges: dict[str, Range] = {
        "seed_everything": (
            f"a whole number in 0…{2**32 - 1}, true or false",
            lambda x: type(x) is bool or 0 <= x < 2**32,
        ),
        "threads": (f"a whole number in 1…{MOST_PROCESSES}", lambda x: 1 <= x <= MOST_PROCESSES),
        "trainer.devices": (
            f"auto, a number from 1 to {MOST_PROCESSES}, or a list of GPUs (-1: all of them)",
            lambda x: _devices(x, options.trainer.accelerator),
        ),
        "trainer.accelerator": (
            "one that is here: the package torch_xla is not installed",
            lambda x: x != "tpu" or find_spec("torch_xla") is not None,
        ),
        "trainer.accumulate_grad_batches": at_least_one,
        "trainer.log_every_n_steps": at_least_one,
        "trainer.check_val_every_n_epoch": at_least_one,
        "trainer.val_check_interval": (
            "batches from 1 up, a share of an epoch in 0…1, or a time",
            lambda x: not isinstance(x, int | float) or (x > 0 and (x <= 1 or x % 1 == 0)),
        ),
        "trainer.limit_train_batches": (
            "batches from 1 up or a share in 0…1: 0 leaves nothing to train on",
            lambda x: x > 0,
        ),
        "trainer.limit_val_batches": (
            "batches from 1 up or a share in 0…1: 0 leaves nothing to score",
            lambda x: x > 0 or not validates,
        ),
        "trainer.num_sanity_val_steps": ("batches from 0 up, or -1 for all", lambda x: x >= -1),
        "trainer.gradient_clip_val": ("a number from 0 up", lambda x: x >= 0),
        "trainer.max_epochs": ("a whole number from 1 up, or -1", lambda x: x == -1 or x >= 1),
        "trainer.barebones": ("false: a run is logged", lambda x: not x),
        "trainer.enable_checkpointing": (
            "true: a run leaves checkpoints; to look for mistakes, --trainer.fast_dev_run true "
            "writes none",
            lambda x: x,
        ),
    }
    for name, (expected, is_right) in ranges.items():
        value = options.get(name)
        if value is not None and not is_right(value):
            raise UsageError(f"--{name} is {value}, expected {expected}")
    strategy = options.get("trainer.strategy.class_path") or options.get("trainer.strategy")
    if isinstance(strategy, str) and SHARDING.search(strategy):
        raise UsageError(f"--trainer.strategy is {strategy}, {NOT_SHARDED}")


def _devices(value: Any, accelerator: Any) -> bool:
    """Return whether so many processes, or these GPUs, may be asked for.

    Which GPUs there are, Lightning knows. On a CPU so many processes are started, whatever the
    number.
    """
    if value == "auto" or isinstance(value, list):
        return True
    if not re.fullmatch(r"-?\d+|\d+(,\d+)*,?", text := str(value).strip()):
        return False
    gpu = accelerator not in ("cpu", "auto") or torch.accelerator.is_available()
    return "," in text or (gpu and int(text) == -1) or 1 <= int(text) <= MOST_PROCESSES


def check_resumable(checkpoint: Checkpoint, path: str) -> None:
    """Refuse to go on with a checkpoint that holds weights only.

    Raises:
        WeightsError: it does.
    """
    if "optimizer_states" not in checkpoint:
        raise WeightsError(
            f"{path} holds no training to go on with (convert wrote it?): start a new one from "
            f"its weights with --model.weights {path}"
        )


def check_options(asked: Mapping[str, Any], stored: Mapping[str, Any], path: str) -> None:
    """Refuse options that a checkpoint would override in silence.

    Args:
        asked: options of the model that the user has set.
        stored: those that hold: the checkpoint's.
        path: of the checkpoint.

    Raises:
        WeightsError: they differ.
    """
    for key, value in asked.items():
        if key in stored and stored[key] != value and key != "weights":
            raise WeightsError(
                f"--model.{key} is {value}, but {path} was trained with {stored[key]}, and a "
                "checkpoint keeps its own. Leave the option out; or, to start a new training "
                f"from these weights, use --model.weights {path} instead of --ckpt_path."
            )


def check_network(contents: Mapping[str, Mapping[str, Any]], stored: Mapping[str, Any]) -> None:
    """Refuse configurations of another network than the checkpoint's, which is the one scored.

    Args:
        contents: name of each configuration → its content, whose section `model` it is about. A
            later one wins over those before it.
        stored: the checkpoint's hyper-parameters.

    Raises:
        WeightsError: an option of the network differs.
    """
    network = default_settings()
    network |= {key: value for key, value in stored.items() if key in network}
    options: dict[str, tuple[str, Any]] = {}  # option → the last configuration with it, its value
    for name, content in contents.items():
        model = content.get("model")
        options |= {k: (name, v) for k, v in model.items()} if isinstance(model, dict) else {}
    for key, (name, value) in options.items():
        if (
            key in network
            and not isinstance(value, dict)
            and as_list(value) != as_list(network[key])
        ):
            raise WeightsError(
                f"{name}: model.{key} is {value}, but the checkpoint's network, which is scored, "
                f"has {as_list(network[key])}. Leave the option out, or give the configuration of "
                "its training; --eval.scales says at which scales it is scored"
            )


def check_classes(classes: Iterable[str], path: str, data: SegmentationData) -> None:
    """Refuse data of other classes than a network's, or in another order; tell of other names.

    Args:
        classes: names of the network's classes, by index.
        path: of its checkpoint.
        data: to be trained on, scored or searched on.

    Raises:
        WeightsError: the numbers differ, or a class stands at another index.
    """
    stored, names, owner = list(classes), list(data.classes), type(data).__name__
    words = differences(stored, names)
    if not words:
        return
    if len(stored) != len(names):
        hint = ""
        if len(stored) in map(len, data.subsets.values()):
            scores = " and ".join(f"mIoU{name}" for name in data.subsets)
            hint = f". {scores} are scored from all {len(names)} outputs (--eval.subsets)"
        raise WeightsError(
            f"{path} has {len(stored)} classes, but {owner} has {len(names)} (index: checkpoint → "
            f"data; {words}): give the data set that it was trained on{hint}"
        )
    check_order(stored, names, path, f"{owner}'s")
    if are_generic(stored):
        say(f"Note: {path} only numbers its classes; they are taken for {owner}'s, in its order.")
        return
    number = f"{len(differing(stored, names))} of the {len(names)}"
    say(
        f"WARNING: {number} classes have other names in {path} than in {owner}, and are taken for "
        f"the same by their index (checkpoint → data): {words}"
    )


def classes_of_scores(stored: Iterable[str], path: str, data: SegmentationData) -> Classes:
    """Return the classes under which a network is scored, in its order, with the data's colors.

    Data whose classes have the same names in another order are brought into the network's order.

    Args:
        stored: names of the network's classes, by index.
        path: of its checkpoint.
        data: to be scored on.

    Raises:
        WeightsError: as `check_classes`.
    """
    names = list(stored)
    if set(names) == set(data.classes):
        return {name: data.classes[name] for name in names}
    check_classes(names, path, data)
    return data.classes


def seen_splits(data: SegmentationData, trained_on: Sequence[str]) -> list[str]:
    """Return the splits trained on that share images with the validation split.

    Two splits share images if the data set says so of their names, or if their lists do: either
    may be wrong alone, a list where only a part of the data is there.

    Args:
        data: with the split to validate on.
        trained_on: entries like "VOC:train_aug", as `SegmentationData.training_label` writes them,
            in capitals or not; those of other data sets are passed over. Of a split of which a
            list selected images, any may have been among them.
    """
    data_set, _, val_split = data.label(data.val_split).lower().rpartition(":")
    splits = []
    for entry in trained_on:
        name, _, split = without_list(entry).rpartition(":")
        if name.lower() != data_set:
            continue
        parts = [data.parts.get(s, {s}) for s in (val_split, split.lower())]
        if parts[0] & parts[1] or _share_ids(data, split):
            splits.append(entry)
    return splits


def _listed(splits: Sequence[str]) -> str:
    return with_short_hashes(", ".join(splits))


def _share_ids(data: SegmentationData, split: str) -> bool:
    """Return whether the lists of a split and of the validation split name the same images."""
    if data.id_space is None:
        return False
    try:
        return bool(set(data.labeled(split).ids) & set(data.validation().ids))
    except DataError:  # not all of its files are here
        return False


def seen_before(
    data: SegmentationData, provenance: Provenance, weights: str
) -> dict[str, list[str]]:
    """Find the splits with images to validate on that weights were trained on; warn of them.

    Args:
        data: with the validation split.
        provenance: of the weights.
        weights: their name for the user.

    Returns:
        Entries of results.json: the splits whose labels, and those whose images alone were trained
        on; none where there are none.
    """
    entries: dict[str, list[str]] = {}
    if splits := seen_splits(data, provenance.trained_on):
        entries[SEEN] = splits
        say(
            f"WARNING: {weights} was trained on {_listed(splits)}, which has images of "
            f"{data.label(data.val_split)}. Their scores say nothing about new images."
        )
    if splits := seen_splits(data, provenance.unlabeled_on):
        entries["validation_split_unlabeled"] = splits
        say(
            f"WARNING: {weights} was trained on the images of {_listed(splits)} without their "
            f"labels, and {data.label(data.val_split)} has some of them."
        )
    if data.init is not None and provenance.init == data.init:
        say(
            f"Note: the backbone of {weights} was first trained on {data.init.upper()}, on images "
            f"that are not known: perhaps on those of {data.label(data.val_split)}."
        )
    return entries


def check_unseen(
    data: SegmentationData, provenance: Provenance, path: str, *, allowed: bool
) -> dict[str, list[str]]:
    """Return the entries of `seen_before`; refuse labeled images of them unless allowed.

    Raises:
        WeightsError: there are some.
    """
    entries = seen_before(data, provenance, path)
    splits = entries.get(SEEN, [])
    if splits and not allowed:
        raise WeightsError(
            f"{path} was trained on {_listed(splits)}. To score it on such images all the same: "
            "--allow_seen_split"
        )
    if not splits and UNKNOWN in provenance.trained_on:
        say(f"Note: it is not known which data {path} was trained on.")
    return entries


def check_same_lists(data: DataModule, provenance: Provenance, path: str) -> None:
    """Refuse to go on with a list of images that has changed; say where another one is given.

    Args:
        data: of the training.
        provenance: of the checkpoint that it goes on from.
        path: of the checkpoint.

    Raises:
        DataError: a list of the same name has another content than that trained on.
    """
    parts = [(data.train, provenance.trained_on)]
    if data.unlabeled is not None:
        parts.append((data.unlabeled, provenance.unlabeled_on))
    for part, entries in parts:
        now = part.training_label()
        before = [entry for entry in entries if without_list(entry) == without_list(now)]
        if now in before or not before:
            continue
        if any(same_list_changed(now, entry) for entry in before):
            assert part.selection is not None  # it stands in the label
            raise DataError(
                f"{part.selection.path} is not the list that {path} was trained with: its SHA-256 "
                f"is another ({_listed([now])}; before: {_listed(before)}). Put that list back; or "
                f"start a new training from these weights with --model.weights {path}, not "
                "--ckpt_path"
            )
        say(f"WARNING: {path} goes on with {_listed([now])}, and was trained on {_listed(before)}.")


def images_seen(datamodule: DataModule) -> dict[str, int]:
    """Count the images to validate on that are trained on too; warn of them.

    Args:
        datamodule: of a training.

    Returns:
        Entries of results.json: of images with labels, of those without; none where there is none.
    """
    entries: dict[str, int] = {}
    if number := datamodule.labeled_in_unlabeled():
        are = "is" if number == 1 else "are"
        say(f"Note: {plural(number, 'labeled image')} {are} among the unlabeled ones too.")
    if number := datamodule.unlabeled_in_validation():
        entries["validation_images_unlabeled"] = number
        are = "is" if number == 1 else "are"
        masks = datamodule.unlabeled.mask_dir if datamodule.unlabeled else None
        but = f", which have the masks of {masks}: these must not be the truth" if masks else ""
        say(f"WARNING: {plural(number, 'validation image')} {are} among the unlabeled ones{but}.")
    truths = datamodule.truths_in_masks()
    if truths:
        say(
            "WARNING: the masks of --unlabeled_data.mask_dir are the truth of the validation "
            "images, to the pixel in all that were compared: these are no pseudo-labels."
        )
    if number := max(datamodule.trained_in_validation(), truths):
        entries["validation_images_trained_on"] = number
        are = "is" if number == 1 else "are"
        say(
            f"WARNING: {number} of the validation images {are} trained on too. Their scores say "
            "nothing about new images and compare with no published ones."
        )
    return entries
