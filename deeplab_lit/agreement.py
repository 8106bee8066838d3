"""Do options, checkpoint and data agree? What is refused or said aloud before the first image."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from deeplab_lit.data import SegmentationData
from deeplab_lit.data.seen import seen_splits
from deeplab_lit.network.class_order import are_generic, differences, differing, moved
from deeplab_lit.network.weights import WeightsError, read_checkpoint
from deeplab_lit.training.evaluation import Evaluation
from deeplab_lit.training.provenance import UNKNOWN
from deeplab_lit.training.screen import say

Checkpoint = Mapping[str, Any]


def check_training(
    options: Namespace, evaluation: Evaluation, *, allow_seen_split: bool = False
) -> None:
    """Refuse a training without an end, and options that would spoil its validations.

    Args:
        options: of the trainer.
        evaluation: as on the command line.
        allow_seen_split: whether that was typed.

    Raises:
        MisconfigurationException: says which.
    """
    if options.max_steps in (-1, 0) and options.max_epochs in (None, -1, 0):
        raise MisconfigurationException(
            "the run must know when training ends: set --trainer.max_steps or --trainer.max_epochs"
        )
    given = {  # a cache would keep the first validation's probabilities
        "eval.cache_dir": evaluation.cache_dir is not None,
        "eval.band": evaluation.band is not None,
        "allow_seen_split": allow_seen_split,
    }
    for name, is_given in given.items():
        if is_given:
            raise MisconfigurationException(
                f"--{name} is for validate; leave it out of fit, and of its configurations"
            )


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


def refuse_without_data(path: str) -> None:
    """Say what is wrong with a checkpoint, or that its data must be named: it is in no run folder.

    Raises:
        WeightsError: always.
    """
    read_checkpoint(path)
    raise WeightsError(
        f"{path} lies in no run folder, whose config.yaml would name the data: name them with "
        "--data and --data.root, like --data VOC --data.root VOCdevkit"
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
    theirs, ours, name = list(classes), list(data.classes), type(data).__name__
    found = differences(theirs, ours)
    if not found:
        return
    if len(theirs) != len(ours):
        raise WeightsError(
            f"{path} has {len(theirs)} classes, but {name} has {len(ours)} (index: checkpoint → "
            f"data; {found}): give the data set that it was trained on"
        )
    check_order(theirs, ours, path, f"{name}'s")
    if are_generic(theirs):
        say(f"Note: {path} only numbers its classes; they are taken for {name}'s, in its order.")
        return
    number = f"{len(differing(theirs, ours))} of the {len(ours)}"
    say(
        f"WARNING: {number} classes have other names in {path} than in {name}, and are taken for "
        f"the same by their index (checkpoint → data): {found}"
    )


def check_order(theirs: Sequence[str], ours: Sequence[str], path: str, whose: str) -> None:
    """Refuse names under which a network's scores or masks would be other classes'.

    Args:
        theirs: names of the network's classes, by index.
        ours: names that they are about to be given.
        path: of its checkpoint.
        whose: the latter are, like "Folder's".

    Raises:
        WeightsError: a class stands at another index.
    """
    if moved(theirs, ours):
        raise WeightsError(
            f"{path} has its classes in another order than {whose} (index: checkpoint → data; "
            f"{differences(theirs, ours)}), so they would be taken for each other. Use the data "
            "that it was trained on; or bring the names, and the values in the masks, into the "
            "checkpoint's order"
        )


def seen_before(data: SegmentationData, provenance: Mapping[str, Any], weights: str) -> list[str]:
    """The splits with images of the validation split that weights were trained on; warns of them.

    Args:
        data: with the validation split.
        provenance: of the weights.
        weights: their name for the user.
    """
    seen = seen_splits(data, provenance["trained_on"])
    if seen:
        say(
            f"WARNING: {weights} was trained on {', '.join(seen)}, which has images of "
            f"{data.label(data.val_split)}. Their scores say nothing about new images."
        )
    return seen


def check_unseen(
    data: SegmentationData, provenance: Mapping[str, Any], path: str, *, allowed: bool
) -> list[str]:
    """As `seen_before`; refuse such images unless they are allowed.

    Raises:
        WeightsError: there are some.
    """
    seen = seen_before(data, provenance, path)
    if seen and not allowed:
        raise WeightsError(
            f"{path} was trained on {', '.join(seen)}. To score it on such images all the same: "
            "--allow_seen_split"
        )
    if not seen and UNKNOWN in provenance["trained_on"]:
        say(f"Note: it is not known which data {path} was trained on.")
    return seen
