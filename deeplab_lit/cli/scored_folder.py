"""Read the predictions in files that `validate --masks DIR` scores."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import Namespace

from deeplab_lit.cli.parser import UsageError, flags
from deeplab_lit.cli.run import Run
from deeplab_lit.data import Cityscapes, DataError, SegmentationData
from deeplab_lit.data.class_maps import MAP_SUFFIXES
from deeplab_lit.data.map_rule import LABEL_FILES, MapRule
from deeplab_lit.data.paths import files_below
from deeplab_lit.data.predicted_maps import PredictedMaps, predictions_in
from deeplab_lit.data.split import Split
from deeplab_lit.data.transforms import resized
from deeplab_lit.network.inference import Inference
from deeplab_lit.scoring.evaluation import SCORED_RESIZED
from deeplab_lit.scoring.observer import Observer
from deeplab_lit.scoring.scored_maps import PredictedVoid, ScoredMaps
from deeplab_lit.scoring.subsets import choose_subsets
from deeplab_lit.text import first_few, plural, say
from deeplab_lit.types import VOID

HOW = {"wrong": "counted as wrong", "background": "counted as background", "skip": "not counted"}
LOOKED_AT = 16  # images whose files are read before the first is scored
OF_NETWORKS = {f"--eval.{name}" for name in (*vars(Inference()), "cache_dir")} - {
    "--eval.resize",
    "--eval.resize_filter",
}


@dataclass(frozen=True)
class ScoredFolder:
    """A folder of predictions, with what is said of them.

    Attributes:
        module: scores them.
        folder: in which they lie.
        number: of images in the split.
        superfluous: files there that belong to none of its images.
        values: what its masks hold.
    """

    module: ScoredMaps
    folder: Path
    number: int
    superfluous: list[Path]
    values: str

    @property
    def step(self) -> int:
        """Return 0: there is no optimizer whose steps count."""
        return 0

    @property
    def settings(self) -> dict[str, Any]:
        """Return no settings: nothing is known of a training."""
        return {}

    @property
    def training(self) -> None:
        """Return None: nothing is known of a training."""
        return None

    @property
    def network(self) -> str:
        """Return "": there is no network."""
        return ""

    @property
    def observers(self) -> list[Observer]:
        """Return what looks at the images beside what every validation has."""
        return [PredictedVoid(self.module)]

    def about(self) -> dict[str, Any]:
        """Return entries of results.json."""
        maps = self.module.maps
        return {
            "masks": str(self.folder.absolute()),
            "mask_files": len(maps.files),
            "mask_files_superfluous": len(self.superfluous),
            "images_without_mask": self.number - len(maps.files),
            "mask_values": self.values,
            "mask_rule": str(maps.rule),
            "void_as": self.module.void_as,
            **({} if self.module.gt_prob is None else {"gt_prob": self.module.gt_prob}),
        }

    def check_data(self, run: Run) -> None:
        """Refuse nothing: what the predictions were made with is not known."""

    def prepare(self, run: Run) -> None:
        """Read some files, and refuse what is wrong with them; say where other values are meant.

        Raises:
            DataError: a file cannot be read, is of another size, or holds what is no class.
        """
        split, size = run.datamodule.validation(), self.module.evaluation.resize
        maps, as_labels = self.module.maps, self.values == "labels"
        number = len(split.ids)
        right, otherwise = 0, 0
        other = replace(maps, table=None if as_labels else split.label_map)
        for index in sorted({i * number // LOOKED_AT for i in range(LOOKED_AT)}):
            id, truth = split.ids[index], split.read(index)[1]
            if self.module.evaluation.score_resized and size is not None:
                truth = resized(truth, size, "nearest")
            right += _hits(maps, id, truth)
            with suppress(DataError):  # so that the other values are not meant
                otherwise += _hits(other, id, truth)
        if otherwise > right:
            meant = "indices" if as_labels else "labels"
            say(
                f"WARNING: read as {meant}, more of these masks would be right ({otherwise:,} of "
                f"the pixels looked at instead of {right:,}): is --mask_values {meant} meant?"
            )

    def introduce(self, run: Run) -> None:
        """Say what is scored."""
        number = len(self.module.maps.files)
        images = plural(self.number, "image")
        say(f"Masks       {plural(number, 'file')} of {self.folder}, for {images}")
        if number < self.number:
            missing = plural(self.number - number, "image")
            counts = "counts" if self.number - number == 1 else "count"
            say(f"WARNING: {missing} without a file {counts} as void throughout (--allow_missing)")
        if files := self.superfluous:
            names = first_few([file.name for file in files])
            say(f"Note: {plural(len(files), 'more file')} there belong to no image scored: {names}")
        if self.module.evaluation.score_resized:
            say(SCORED_RESIZED)

    def title(self) -> str:
        """Return what was scored, for the title of the table."""
        return str(self.folder)

    def how(self) -> str:
        """Return how it was scored, for the title of the table."""
        return (
            f"void {HOW[self.module.void_as]}"
            if self.module.void().pixels
            else "no void in the masks"
        )

    def conclude(self, run: Run) -> None:
        """Say how much of the predictions is void."""
        void = self.module.void()
        if void.pixels:
            say(
                f"Void        {void.share:.2%} of the pixels scored are void in these masks, "
                f"{HOW[self.module.void_as]} (--void_as wrong, background or skip)"
            )


def folder_to_score(options: Namespace, built: Namespace, argv: Sequence[str]) -> ScoredFolder:
    """Return the folder that `--masks` names, its files found.

    Args:
        options: of `validate`, parsed.
        built: the same, its classes instantiated.
        argv: the command line.

    Raises:
        UserError: options do not go together; or files are missing.
    """
    data, folder = built.data, Path(options.masks).expanduser()
    _check_options(options, argv, data)
    split = data.selected(data.validation())
    names = _names(data, split, folder)
    images = split.image_files() or [Path(name) for name in names]  # those that are drawn
    title = f"{data.title} {data.val_split}"
    found, superfluous = predictions_in(
        folder, names, images, title, missing_ok=options.allow_missing
    )
    rule = MapRule.parse(options.mask_rule) if options.mask_rule else None
    if rule is not None and not any(f.suffix.lower() in MAP_SUFFIXES for f in found.values()):
        raise DataError(
            f"--mask_rule {options.mask_rule} is for class maps (.npy, .npz), but {folder} has "
            f"masks as {next(iter(found.values())).name}: leave it out"
        )
    pairs = zip(split.ids, names, strict=True)
    files = {id: found[name] for id, name in pairs if name in found}
    module = ScoredMaps(
        PredictedMaps(
            files,
            len(data.classes),
            _table(data, split) if options.mask_values == "labels" else None,
            rule or MapRule(),
        ),
        data.classes,
        built.eval,
        choose_subsets(data, data.classes, built.eval.subsets),
        options.void_as,
        options.gt_prob if built.crf is not None else None,
    )
    return ScoredFolder(module, folder, len(split.ids), superfluous, options.mask_values)


def _check_options(options: Namespace, argv: Sequence[str], data: SegmentationData) -> None:
    """Refuse options that do not go together.

    Raises:
        UsageError: says which.
    """
    typed = flags(argv)
    if not options.masks.strip():
        raise UsageError("--masks got an empty name: give a folder")
    if of_network := sorted(typed & OF_NETWORKS):
        raise UsageError(
            f"{of_network[0]} is for a network, and --masks scores files: leave it out"
        )
    if (
        options.eval.resize is not None
        and "--eval.resize" in typed
        and not (options.eval.score_resized)
    ):
        raise UsageError(
            "--eval.resize is for a network, and --masks scores files: leave it out; or give "
            "--eval.score_resized true for files of that size"
        )
    if not 0.5 < options.gt_prob < 1:
        raise UsageError(f"--gt_prob must be between 0.5 and 1, got {options.gt_prob:g}")
    if options.crf is None and "--gt_prob" in typed:
        raise UsageError("--gt_prob is for the CRF, which is not asked for: leave it out, or --crf")
    if options.allow_missing and options.crf is not None:
        raise UsageError("--allow_missing: of an image without a file there is nothing to refine")
    if data.selection is not None and data.val_split != data.train_split:
        raise UsageError(
            f"--data.{data.selection.option} selects images of the training split, "
            f"{data.train_split}, and {data.val_split} is scored: leave it out, or score the "
            f"training split with --data.val_split {data.train_split}"
        )
    first = next(iter(data.classes))
    if options.void_as == "background" and "background" not in first.lower():
        raise UsageError(
            f"--void_as background counts void as class 0, which is {first}: no background"
        )


def _names(data: SegmentationData, split: Split, folder: Path) -> list[str]:
    """Return the name that each image's file may have in a folder, without its suffix.

    Cityscapes' script takes any file whose name begins with city, sequence and frame; so do we,
    where there is one.
    """
    names = list(data.names_of_masks(split.ids, folder))
    if not isinstance(data, Cityscapes):
        return names
    stems: dict[str, set[str]] = {}
    for file in files_below(folder):
        if file.suffix.lower() in LABEL_FILES:
            stems.setdefault("_".join(file.stem.split("_")[:3]), set()).add(file.stem)
    return [next(iter(stems[id])) if len(stems.get(id, ())) == 1 else id for id in names]


def _table(data: SegmentationData, split: Split) -> np.ndarray | None:
    """Return the table from the values in a split's label files to class indices; None: the same.

    Raises:
        UsageError: they hold colors.
    """
    if not split.label_values(len(data.classes)):
        raise UsageError(
            f"--mask_values labels: the label files of {data.title} hold colors, and "
            "masks to be scored hold numbers: give class indices"
        )
    return split.label_map


def _hits(maps: PredictedMaps, id: str, truth: np.ndarray) -> int:
    """Return how many pixels of an image are right.

    Args:
        maps: the predictions.
        id: of the image.
        truth: (H,W) uint8, its mask.

    Raises:
        DataError: as `PredictedMaps.read`.
    """
    size = (truth.shape[0], truth.shape[1])
    labels = maps.labels(maps.read(id, size), size)
    return int(((labels == truth) & (truth != VOID)).sum())
