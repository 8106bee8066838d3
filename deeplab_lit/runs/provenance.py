"""Provenance: where weights come from and which data they have seen; written into every file.

What was typed is not in it, for files are passed on: it may hold paths and keys. Files that were
written earlier have it, as `command`; it is dropped when they are read.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from deeplab_lit.network.weights.fetch import weight_file
from deeplab_lit.network.weights.formats.source import Source
from deeplab_lit.network.weights.published import PUBLISHED, UNKNOWN, Published, Quoted
from deeplab_lit.network.weights.read import sha256_of
from deeplab_lit.network.weights.start import imagenet_file
from deeplab_lit.text import with_short_hashes

INITS = ("imagenet", "coco", "none")
# outputs of the classifier of a pretraining → what it was trained on; the authors' has 91
PRETRAININGS = {1000: "imagenet", 91: "coco"}
TITLES = {"imagenet": "ImageNet", "coco": "MS-COCO"}


BY_HAND = "by hand: convert --init"


@dataclass(frozen=True)
class Provenance:
    """The provenance of weights: where they come from.

    Attributes:
        source: name of the file that training or conversion started from; None: no file.
        sha256: its hash.
        init: what the backbone was first trained on: "imagenet", "coco", "none" or "unknown".
        trained_on: splits like "VOC:train_aug", oldest first; "unknown" among them where it is.
        version: of deeplab_lit, that wrote the file; None: not written yet.
        origin: the provenance that stood in the source, as it stood there; None: none did.
        unlabeled_on: splits whose images are trained on without their labels, oldest first.
        about: what else is known of the source, disputed or unknown; None: nothing to say.
    """

    source: str | None = None
    sha256: str | None = None
    init: str = UNKNOWN
    trained_on: tuple[str, ...] = (UNKNOWN,)
    version: str | None = None
    origin: dict[str, Any] | None = None
    unlabeled_on: tuple[str, ...] = ()
    about: str | None = None

    @classmethod
    def from_file(cls, path: str | Path, source: Source, init: str | None = None) -> "Provenance":
        """Return the provenance of what starts from a file; warn where name and content disagree.

        Args:
            path: the file.
            source: what was read from it.
            init: what the user says of it; None: by the file's name and content.
        """
        path = Path(path)
        start = cls(path.name, sha256_of(path))
        if source.provenance is not None:
            before = cls.from_checkpoint({"provenance": source.provenance})
            origin = without_commands(source.provenance)
            about = before.about if init is None else BY_HAND
            return replace(
                start,
                init=init or before.init,
                trained_on=before.trained_on,
                unlabeled_on=before.unlabeled_on,
                about=about,
                origin=origin,
            )
        known = known_by_name(path.name, source)
        if init is None:
            init, about = _first_training(path, source, known)
        else:
            about = BY_HAND
        trained_on = known.trained_on if known else (UNKNOWN,)
        return replace(start, init=init, trained_on=trained_on, about=about)

    @classmethod
    def from_weights(cls, weights: str, source: Source | None) -> "Provenance":
        """Return the provenance of the initial weights that `--model.weights` names.

        Args:
            weights: "none", "imagenet", a name of published weights, or a file.
            source: what was read; None for "none".
        """
        if source is None:
            return cls(init="none", trained_on=())
        if weights != "imagenet":
            return cls.from_file(weight_file(weights), source)
        file, _ = imagenet_file(source.network["backbone"])
        digest = sha256_of(file) if file.is_file() else None
        return cls(file.name, digest, "imagenet", ())

    @classmethod
    def from_checkpoint(cls, checkpoint: Mapping[str, Any]) -> "Provenance":
        """Return what a checkpoint of ours says; what it does not say is unknown."""
        entries = without_commands(checkpoint.get("provenance") or {})
        known = {name: entries[name] for name in cls.__dataclass_fields__ if name in entries}
        for name in known.keys() & {"trained_on", "unlabeled_on"}:
            known[name] = tuple(known[name])
        return cls(**known)

    def extended(self, version: str, *splits: str, unlabeled: Sequence[str] = ()) -> "Provenance":
        """Return the provenance of a file about to be written.

        Args:
            version: of deeplab_lit.
            splits: that it is trained on besides; each is named once.
            unlabeled: splits whose images it is trained on besides, without their labels.
        """
        return replace(
            self,
            trained_on=tuple(dict.fromkeys((*self.trained_on, *splits))),
            unlabeled_on=tuple(dict.fromkeys((*self.unlabeled_on, *unlabeled))),
            version=version,
        )

    def in_words(self) -> str:
        """Say what was trained on, with labels and without; empty where nothing is known of it."""
        known = [split for split in self.trained_on if split != UNKNOWN]
        images = [f"images of {split} without their labels" for split in self.unlabeled_on]
        return with_short_hashes(", ".join([*known, *images]))

    def as_dict(self) -> dict[str, Any]:
        """Return plain entries, as files hold them: `weights_only` reading accepts them."""
        lists = {"trained_on": list(self.trained_on), "unlabeled_on": list(self.unlabeled_on)}
        return asdict(self) | lists


def without_commands(provenance: dict[str, Any]) -> dict[str, Any]:
    """Return provenance without the command lines that earlier versions wrote into it."""
    return {
        key: without_commands(value) if isinstance(value, dict) else value
        for key, value in provenance.items()
        if key != "command"
    }


def known_by_name(name: str, source: Source) -> Published | None:
    """Return what is known of a file by its name and, where others are called so, by its content.

    Args:
        name: of the file.
        source: what was read from it.
    """
    content = ("caffe", source.network.get("backbone"), source.num_classes)
    for entry in PUBLISHED:
        is_it = not entry.by_content or content == (source.format, entry.backbone, entry.classes)
        if entry.is_called(name) and is_it:
            return entry
    return None


def quoted_of(provenance: Provenance, source: Source, step: int) -> Quoted | None:
    """Return the published score of a network that is still as it was published.

    Args:
        provenance: of its weights.
        source: what was read from its file.
        step: optimizer steps that it was trained for since.
    """
    for entry in PUBLISHED:
        is_it = entry.file == provenance.source and entry.trained_on == provenance.trained_on
        if is_it and not step and entry.backbone == source.network.get("backbone"):
            return entry.quoted
    return None


def _first_training(path: Path, source: Source, known: Published | None) -> tuple[str, str | None]:
    """Return what weights were first trained on, and what else there is to say of it.

    A classifier of the pretraining in the file counts for more than the file's name; a warning says
    where they disagree.

    Args:
        path: of the file.
        source: what was read from it.
        known: by its name; None: nothing.
    """
    by_name, about = (known.init, known.about) if known else (UNKNOWN, None)
    outputs = source.pretraining_classes
    in_file = PRETRAININGS.get(outputs or 0)
    if in_file is None or (by_name, about) == (in_file, None):
        is_dark = by_name == UNKNOWN and about is None
        return by_name, "neither its name nor its content tells" if is_dark else about
    in_name = {by_name} & TITLES.keys() or {word for word in TITLES if word in path.name.lower()}
    if in_name and in_file not in in_name:
        warnings.warn(
            f"{path}: its name says {TITLES[min(in_name)]}, but the classifier in it has {outputs} "
            f"outputs, {TITLES[in_file]}'s number: they contradict each other, and {in_file} is "
            f"believed. If you know better: python -m deeplab_lit.convert {path} NEW.ckpt --init "
            f"{min(in_name)}, and start from that",
            stacklevel=3,
        )
    looked_at = f"the classifier in it has {outputs} outputs, {TITLES[in_file]}'s number"
    return in_file, f"{about}; {looked_at}" if about else looked_at
