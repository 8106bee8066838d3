"""The base of all data sets: classes, splits, and the judgment of its masks. Needs no Lightning."""

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from deeplab_lit.data.check import Check, Summary, preflight
from deeplab_lit.data.file_split import FileSplit, ImageFiles
from deeplab_lit.data.image import DataError
from deeplab_lit.data.map_rule import MapRule
from deeplab_lit.data.meaning import (
    Finding,
    judge_classes,
    judge_indices,
    judge_names,
    judge_palettes,
    refuse_proved,
)
from deeplab_lit.data.paths import refuse_missing
from deeplab_lit.data.pseudo_masks import with_masks_of
from deeplab_lit.data.selection import Selection
from deeplab_lit.data.split import PartOfSplit, Split
from deeplab_lit.types import Classes, Color

MaskValues = Literal["indices", "labels"]


class SegmentationData(ABC):
    """Images and masks of a data set: which classes, which splits, which files.

    A subclass has `classes` and `split`. How images become batches is said to `DataModule`.

    Args:
        train_split: which split to train on.
        val_split: which split to validate on.
        mask_dir: folder with a mask for every training image, called <id>.png or as the image is,
            to train on instead of the ground truth (pseudo-labels), which need not be there. Or
            with .npy and .npz files: class indices, or class maps of IRN, CLIP-ES and others (see
            class_maps.py), which `mask_rule` turns into labels.
        mask_values: what the masks of `mask_dir` hold: "indices" of classes, or the values of the
            "labels" of the data set; 255 is void in both.
        mask_rule: for class maps in `mask_dir`: "threshold:0.15" or "power:2", also with
            ",certain:0.95" (see map_rule.py). None: they are probabilities of all classes.
        ids: file that names the images of the training split to use, one a line: ids or paths, as
            the lists of ST++ and UniMatch. The validation split stays whole.
        all_but: file that names the images of the training split to leave out: the rest, for
            `--unlabeled_data`. The validation split stays whole.

    Attributes:
        classes: name → color, in the order of the class indices.
        parts: split → the disjoint sets of images that it is made of.
        palette: of the label files, where all have the same: value → color.
        never: classes that no label file holds.
        subsets: name → classes that are scored beside all of them where it is asked for, as
            val/miou<name> (`--eval.subsets`).
        official_ids: an id is the same image in every copy of the data set, wherever it lies.
        init: what weights are said to be first trained on ("coco"), if they may have seen these
            images then.
    """

    classes: Classes
    parts: dict[str, set[str]] = {}
    palette: dict[int, Color] = {}
    never: frozenset[str] = frozenset()
    subsets: dict[str, tuple[str, ...]] = {}
    official_ids: bool = False
    init: str | None = None

    def __init__(
        self,
        *,
        train_split: str = "train",
        val_split: str = "val",
        mask_dir: str | None = None,
        mask_values: MaskValues = "indices",
        mask_rule: str | None = None,
        ids: str | None = None,
        all_but: str | None = None,
    ) -> None:
        self.train_split = train_split
        self.val_split = val_split
        self.mask_dir = Path(mask_dir).expanduser() if mask_dir else None
        if mask_values not in get_args(MaskValues):
            raise DataError(f"mask_values must be indices or labels, got {mask_values}")
        odd = mask_rule or (mask_values if mask_values != get_args(MaskValues)[0] else None)
        if odd and self.mask_dir is None:
            raise DataError(
                f"mask_rule and mask_values say how to read the masks of a mask_dir ({odd} is "
                "given), but there is none: give the folder, or leave them out"
            )
        self.mask_values = mask_values
        self.mask_rule = MapRule.parse(mask_rule) if mask_rule else None
        self.selection = Selection(ids, all_but) if ids or all_but else None
        self._built: dict[str, Split] = {}
        self._training: Split | None = None
        self._images: Split | None = None

    @property
    def title(self) -> str:
        """Return the name of the data set for people, with what makes it another one."""
        return type(self).__name__

    @property
    def id_space(self) -> str | None:
        """Return a name of the images that ids stand for; None where each split counts anew.

        Sets of one class in two folders are two sets, unless the ids are `official_ids`.
        """
        root = None if self.official_ids else getattr(self, "root", None)
        return type(self).__name__ + ("" if root is None else f" in {os.path.realpath(root)}")

    @abstractmethod
    def split(self, name: str) -> Split:
        """Find the images and masks of a split; `labeled` returns the same without a new search.

        Raises:
            DataError: it does not exist, or has no labels.
        """

    def labeled(self, name: str) -> Split:
        """Return a split, whose files are looked for once.

        Raises:
            DataError: as `split`.
        """
        if name not in self._built:
            self._built[name] = self.split(name)
        return self._built[name]

    def validation(self) -> Split:
        """Return the split to validate on.

        Raises:
            DataError: as `split`.
        """
        return self.labeled(self.val_split)

    def training(self) -> Split:
        """Return the selected images of the training split, with the masks of `mask_dir` if any.

        Raises:
            DataError: as `split`; or masks are missing; or the list does not fit the split.
        """
        if self._training is None:
            if self.mask_dir is None:
                self._training = self.selected(self.labeled(self.train_split))
            else:
                self._training = with_masks_of(
                    self.mask_dir,
                    self.images(),
                    names=partial(self.names_of_masks, folder=self.mask_dir),
                    num_classes=len(self.classes),
                    in_labels=self.mask_values == "labels",
                    rule=self.mask_rule,
                )
        return self._training

    def images(self) -> Split:
        """Return the selected images of the training split, without labels; looked for once.

        Raises:
            DataError: as `images_of`; or the list does not fit the split.
        """
        if self._images is None:
            self._images = self.selected(self.images_of(self.train_split))
        return self._images

    def listing(self, name: str) -> FileSplit | None:
        """Return the files of a split, of which masks need not be there.

        Returns:
            None where the data set cannot tell them without its masks.

        Raises:
            DataError: the split does not exist.
        """
        return None

    def images_of(self, name: str) -> Split:
        """Find the images of a split, whose masks are not read.

        A data set that can list images alone overrides this, or `listing`; else masks must be there
        too.

        Raises:
            DataError: as `split`; names the way for images without masks.
        """
        if (files := self.listing(name)) is not None:
            images = files.image_files()
            refuse_missing(images)
            return ImageFiles(files.ids, images, files.label_map)
        try:
            return self.labeled(name)
        except DataError as error:
            raise DataError(
                f"{str(error).removesuffix('.')}. Images without masks are --unlabeled_data Images "
                "--unlabeled_data.root DIR, with the folder that they lie in"
            ) from error

    def selected(self, split: Split) -> Split:
        """Return the images of the training split that a list leaves of it; without one, all.

        Raises:
            DataError: the list does not fit the split.
        """
        if self.selection is None:
            return split
        names = {*self.parts, self.val_split} - {self.train_split}
        others = {name: partial(self.images_of, name) for name in sorted(names)}
        title = f"{self.title} {self.train_split}"
        return self.selection.of(split, title, others)

    def truth(self) -> Split | None:
        """Return the images of the training split whose ground truth lies on disk; None: none."""
        try:
            files = self.listing(self.train_split)
            if files is None:
                return self.labeled(self.train_split)
        except DataError:  # without ground truth, that is no mistake
            return None
        there = [index for index, pair in enumerate(files.pairs) if pair.mask.is_file()]
        return PartOfSplit(files, there) if there else None

    def shared(self, split: Split, other: "SegmentationData") -> int:
        """Count the images of the training split that another data set validates on."""
        return len(self.same_images(split, other))

    def same_images(self, split: Split, other: "SegmentationData") -> dict[int, int]:
        """Find the images of the training split that another data set validates on.

        Sets that name images alike are compared by these names, and so is a split with itself;
        others are compared by the places of the files.

        Args:
            split: to train on, with labels or without.
            other: the data set to validate on; it may be this one.

        Returns:
            The index of each in `split` → in `other.validation()`.
        """
        is_same_split = other is self and self.train_split == self.val_split
        return self.shared_by(split, other, other.validation(), by_name=is_same_split)

    def shared_by(
        self, split: Split, other: "SegmentationData", others: Split, *, by_name: bool = False
    ) -> dict[int, int]:
        """Find the images of a split that one of another data set has too, as `same_images`.

        Args:
            split: of this data set.
            other: the other data set.
            others: the other split.
            by_name: ids of both stand for the same images, whatever the data sets say.

        Returns:
            The index of each in `split` → in `others`.
        """
        if not by_name and self.id_space is not None:
            by_name = self.id_space == other.id_space
        mine, theirs = (split.ids, others.ids) if by_name else (_places(split), _places(others))
        places = {name: index for index, name in enumerate(theirs)}
        return {index: places[name] for index, name in enumerate(mine) if name in places}

    def label(self, split: str) -> str:
        """Return a split's name in the provenance of weights that were trained on it."""
        return f"{self.title}:{split}"

    def training_label(self) -> str:
        """Return the label of the training split, with the list that selects images of it.

        Raises:
            DataError: the list cannot be read.
        """
        label = self.label(self.train_split)
        return label if self.selection is None else label + self.selection.in_label()

    def training_name(self) -> str:
        """Return the training split's name, with the list that selects images of it.

        Raises:
            DataError: the list cannot be read.
        """
        name = self.train_split
        return name if self.selection is None else f"{name}, {self.selection.in_words()}"

    def pseudo_labels(self, num_workers: int, check: Check = "full") -> Summary | None:
        """Read the masks of `mask_dir`, and sum them up; None where there is no such folder.

        Args:
            num_workers: threads that read.
            check: "full" reads all; "quick" a part of many, as `preflight`.

        Raises:
            DataError: a list of what is wrong with them, or all of them are void.
        """
        if self.mask_dir is None:
            return None
        title = f"{self.title} {self.training_name()} with masks of {self.mask_dir}"
        summary = preflight(self.training(), title, check, num_workers, len(self.classes))
        refuse_proved(self.findings(summary, None))
        return summary

    def findings(self, training: Summary | None, validation: Summary | None) -> list[Finding]:
        """Judge whether the masks mean what they seem.

        Args:
            training: what the masks of `training()` hold; None where they are not used.
            validation: what those of `validation()` hold; None where they are not used.
        """
        both = (training, None if validation is training else validation)
        summaries = [summary for summary in both if summary is not None]
        names = list(self.classes)
        values = summaries[-1].label_values if summaries else {}
        # masks that hold indices say nothing of the label files
        of_indices = (
            training if self.mask_dir is not None and self.mask_values == "indices" else None
        )
        if of_indices is not None:
            values = self.label_values()
        remedies = [self.void_remedy(values.get(index, index)) for index in range(len(names))]
        findings = [Finding(f"{s.title}: {r}", proved=False) for s in summaries for r in s.remarks]
        findings += judge_names(names, remedies)
        if len(names) == 1:
            return findings
        of_label_files = []
        for summary in summaries:
            if summary is of_indices:
                findings += judge_palettes(summary.colors, self.palette)
                findings += judge_indices(summary, values, self.classes)
            else:
                findings += filter(None, [self.odd_values(summary)])
                of_label_files.append(summary)
            is_training = summary is training
            findings += judge_classes(
                summary,
                names,
                training=is_training,
                never=self.never,
                selected=is_training and self.selection is not None,
            )
        colors = {entry: file for s in reversed(of_label_files) for entry, file in s.colors.items()}
        return findings + list(judge_palettes(colors, self.palette))

    def label_values(self) -> dict[int, int]:
        """Return class index → its value in the label files of the training split.

        Those of `mask_dir` hold indices instead.

        Raises:
            DataError: as `training`.
        """
        split = self.labeled(self.train_split) if self.mask_dir is None else self.images()
        return split.label_values(len(self.classes))

    def odd_values(self, summary: Summary) -> Finding | None:
        """Judge the values in a split's label files by what the official ones hold."""
        return None

    def names_of_masks(self, ids: Sequence[str], folder: Path) -> Sequence[str]:
        """Return the name that each image's mask has in a folder like `mask_dir`."""
        return ids

    def void_remedy(self, value: int) -> str:
        """Say how to make the class of a value void, as the end of a sentence."""
        return f"write 255 instead of {value}"


def _places(split: Split) -> list[str]:
    """Return where each image of a split lies, past links; of images that are drawn, nothing.

    Links are followed for each folder once, since a look-up for each image takes long.
    """
    files = split.image_files()
    folders = {folder: folder.resolve() for folder in {file.parent for file in files}}
    return [str(folders[file.parent] / file.name) for file in files]
