"""Provenance: where weights come from and which data they have seen; written into every file.

What was typed is not in it, for files are passed on: it may hold paths and keys. Files that were
written earlier have it, as `command`; it is dropped when they are read.
"""

import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from deeplab_lit.network.weights.formats.source import Source
from deeplab_lit.network.weights.read import sha256_of
from deeplab_lit.network.weights.start import imagenet_file
from deeplab_lit.text import with_short_hashes

UNKNOWN = "unknown"
INITS = ("imagenet", "coco", "none")
AUTHORS = {"resnet101": "coco", "vgg16": "imagenet"}
# outputs of the classifier of a pretraining → what it was trained on; the authors' has 91
PRETRAININGS = {1000: "imagenet", 91: "coco"}
TITLES = {"imagenet": "ImageNet", "coco": "MS-COCO"}


class Published(NamedTuple):
    """What is known of a published file, by its name.

    Attributes:
        init: as of Provenance; "authors": by the backbone, and only where there are VOC's 21
            classes, since Caffe gives every training the same names.
        trained_on: splits that it was trained on to segment.
        about: what else is known of where it comes from, disputed or unknown.
    """

    init: str
    trained_on: tuple[str, ...] = ()
    about: str | None = None


NOT_KNOWN = Published(UNKNOWN, (UNKNOWN,))
BY_HAND = "by hand: convert --init"
# names, as patterns
PUBLISHED = {
    r"train_iter_20000\.caffemodel": Published("authors", ("VOC:train_aug",)),
    r"train2_iter_20000\.caffemodel": Published("authors", ("VOC:trainval_aug",)),
    r"deeplabv1_resnet101-coco\.pth": Published(
        "coco", about="kazuto1011's copy of the authors' init.caffemodel, trained on MS-COCO"
    ),
    # opened by nobody here: README of AdvCAM; kazuto1011 107; BBAM 1
    r"deeplabv1_resnet101-imagenet\.pth": Published(
        "imagenet",
        about="shared by the author of AdvCAM, and used by RIB, ReCAM, LPCAM and CLIP-ES; how it "
        "was made is written nowhere, and kazuto1011's network takes only values of Caffe's kind. "
        "A file of the same author for BBAM is disputed: with it one user got the scores that "
        "MS-COCO gives (BBAM, issue 1)",
    ),
    r"deeplabv2_resnet101_msc-vocaug-20000\.pth": Published("coco", ("VOC:train_aug",)),
    r"deeplabv2_resnet101_msc-vocaug\.pth": Published("coco", ("VOC:trainval_aug",)),
    r"deeplabv2_resnet101_msc-cocostuff10k-20000\.pth": Published("coco", ("CocoStuff10k:train",)),
    r"deeplabv2_resnet101_msc-cocostuff164k-100000\.pth": Published(
        "coco", ("CocoStuff164k:train",)
    ),
    r"MS_DeepLab_resnet_pretrained_COCO_init\.pth": Published("coco"),
    r"MS_DeepLab_resnet_trained_VOC\.pth": Published("coco", ("VOC:train_aug",)),
    r"DeepLab_resnet_pretrained_(init|imagenet).*\.pth": Published(
        UNKNOWN, about="disputed: MS-COCO by its author, ImageNet by papers that start from it"
    ),
    r"GTA2Cityscapes_multi-.*\.pth": Published(
        UNKNOWN, ("GTA5:all", "Cityscapes:train"), "as that of DeepLab_resnet_pretrained_init.pth"
    ),
    r"resnet101COCO-41f33a49\.pth": Published("coco"),
    r"vgg16_20M\.caffemodel": Published("imagenet"),
    # torchvision's first and second ImageNet weights; before them those of its old versions
    r"resnet18-(5c106cde|f37072fd)\.pth": Published("imagenet"),
    r"resnet34-(333f7ec4|b627a593)\.pth": Published("imagenet"),
    r"resnet50-(19c8e357|0676ba61|11ad3fa6)\.pth": Published("imagenet"),
    r"resnet101-(5d3b4d8f|63fe2227|cd907fc2)\.pth": Published("imagenet"),
    r"resnet152-(b121ed2d|394f9c45|f82ba261)\.pth": Published("imagenet"),
    r"vgg16-397923af\.pth": Published("imagenet"),
}


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
        known = _published(path.name, source)
        if init is None:
            init, about = _first_training(path, source, known)
        else:
            about = BY_HAND
        return replace(start, init=init, trained_on=known.trained_on, about=about)

    @classmethod
    def from_weights(cls, weights: str, source: Source | None) -> "Provenance":
        """Return the provenance of the initial weights that `--model.weights` names.

        Args:
            weights: "none", "imagenet", or a file.
            source: what was read; None for "none".
        """
        if source is None:
            return cls(init="none", trained_on=())
        if weights != "imagenet":
            return cls.from_file(weights, source)
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


def _published(name: str, source: Source) -> Published:
    """Return what is known of a file by its name."""
    known = next((file for p, file in PUBLISHED.items() if re.fullmatch(p, name)), NOT_KNOWN)
    if known.init == "authors":
        is_theirs = source.num_classes == 21
        known = known._replace(init=AUTHORS[source.network["backbone"]]) if is_theirs else NOT_KNOWN
    if source.format == "caffe" and source.num_classes is None and name.startswith("init"):
        return Published(AUTHORS[source.network["backbone"]])
    return known


def _first_training(path: Path, source: Source, known: Published) -> tuple[str, str | None]:
    """Return what weights were first trained on, and what else there is to say of it.

    A classifier of the pretraining in the file counts for more than the file's name; a warning says
    where they disagree.

    Args:
        path: of the file.
        source: what was read from it.
        known: by its name.
    """
    outputs = source.pretraining_classes
    in_file = PRETRAININGS.get(outputs or 0)
    if in_file is None or known == Published(in_file, known.trained_on):
        is_dark = known.init == UNKNOWN and known.about is None
        return known.init, "neither its name nor its content tells" if is_dark else known.about
    in_name = {known.init} & TITLES.keys() or {word for word in TITLES if word in path.name.lower()}
    if in_name and in_file not in in_name:
        warnings.warn(
            f"{path}: its name says {TITLES[min(in_name)]}, but the classifier in it has {outputs} "
            f"outputs, {TITLES[in_file]}'s number: they contradict each other, and {in_file} is "
            f"believed. If you know better: python -m deeplab_lit.convert {path} NEW.ckpt --init "
            f"{min(in_name)}, and start from that",
            stacklevel=3,
        )
    looked_at = f"the classifier in it has {outputs} outputs, {TITLES[in_file]}'s number"
    return in_file, f"{known.about}; {looked_at}" if known.about else looked_at
