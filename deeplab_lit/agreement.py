"""Do options, checkpoint and data agree? What is refused or said aloud before the first image."""

from collections.abc import Mapping
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from deeplab_lit.data import SegmentationData
from deeplab_lit.data.seen import seen_splits
from deeplab_lit.data.words import counted, some
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


def check_classes(checkpoint: Checkpoint, path: str, data: SegmentationData) -> None:
    """Refuse data of another number of classes; tell of other names.

    Raises:
        WeightsError: the numbers differ.
    """
    stored, here = list(checkpoint["hyper_parameters"]["classes"]), list(data.classes)
    name = type(data).__name__
    if len(stored) != len(here):
        raise WeightsError(
            f"{path} has {counted(len(stored), 'class')} ({some(stored)}), but {name} has "
            f"{len(here)} ({some(here)}): give the data set that it was trained on"
        )
    if stored != here:
        say(f"Note: {path} calls its classes {some(stored)}; {name} calls them {some(here)}.")


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
