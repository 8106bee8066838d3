"""Provenance: where weights come from and which data they have seen; written into every file.

What was typed is not in it, for files are passed on: it may hold paths and keys. Files that were
written earlier have it, as `command`; it is dropped when they are read.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from deeplab_lit.network.weights.formats.source import Source
from deeplab_lit.network.weights.read import sha256_of
from deeplab_lit.network.weights.start import imagenet_file

UNKNOWN = "unknown"
INITS = ("imagenet", "coco", "none")
AUTHORS = {"resnet101": "coco", "vgg16": "imagenet"}
# Names under which files are published → init, splits. "authors": by the backbone, and only where
# there are VOC's 21 classes, since Caffe gives every training the same names.
PUBLISHED: dict[str, tuple[str, list[str]]] = {
    r"train_iter_20000\.caffemodel": ("authors", ["VOC:train_aug"]),
    r"train2_iter_20000\.caffemodel": ("authors", ["VOC:trainval_aug"]),
    r"deeplabv1_resnet101-coco\.pth": ("coco", []),
    r"deeplabv2_resnet101_msc-vocaug-20000\.pth": ("coco", ["VOC:train_aug"]),
    r"deeplabv2_resnet101_msc-vocaug\.pth": ("coco", ["VOC:trainval_aug"]),
    r"deeplabv2_resnet101_msc-cocostuff10k-20000\.pth": ("coco", ["CocoStuff10k:train"]),
    r"deeplabv2_resnet101_msc-cocostuff164k-100000\.pth": ("coco", ["CocoStuff164k:train"]),
    r"MS_DeepLab_resnet_pretrained_COCO_init\.pth": ("coco", []),
    r"MS_DeepLab_resnet_trained_VOC\.pth": ("coco", ["VOC:train_aug"]),
    # its own author says COCO, the papers that use it say ImageNet
    r"DeepLab_resnet_pretrained_(init|imagenet).*\.pth": (UNKNOWN, []),
    r"GTA2Cityscapes_multi-.*\.pth": (UNKNOWN, ["GTA5:all", "Cityscapes:train"]),
    r"resnet101COCO-41f33a49\.pth": ("coco", []),
    r"vgg16_20M\.caffemodel": ("imagenet", []),
    # torchvision's first and second ImageNet weights; before them those of its old versions
    r"resnet18-(5c106cde|f37072fd)\.pth": ("imagenet", []),
    r"resnet34-(333f7ec4|b627a593)\.pth": ("imagenet", []),
    r"resnet50-(19c8e357|0676ba61|11ad3fa6)\.pth": ("imagenet", []),
    r"resnet101-(5d3b4d8f|63fe2227|cd907fc2)\.pth": ("imagenet", []),
    r"resnet152-(b121ed2d|394f9c45|f82ba261)\.pth": ("imagenet", []),
    r"vgg16-397923af\.pth": ("imagenet", []),
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
    """

    source: str | None = None
    sha256: str | None = None
    init: str = UNKNOWN
    trained_on: tuple[str, ...] = (UNKNOWN,)
    version: str | None = None
    origin: dict[str, Any] | None = None
    unlabeled_on: tuple[str, ...] = ()

    @classmethod
    def from_file(cls, path: str | Path, source: Source) -> "Provenance":
        """Return the provenance of what starts from a file.

        Args:
            path: the file.
            source: what was read from it.
        """
        path = Path(path)
        start = cls(path.name, sha256_of(path))
        if source.provenance is not None:
            before = cls.from_checkpoint({"provenance": source.provenance})
            origin = without_commands(source.provenance)
            return replace(
                start,
                init=before.init,
                trained_on=before.trained_on,
                unlabeled_on=before.unlabeled_on,
                origin=origin,
            )
        if published := _published(path.name, source):
            init, splits = published
            return replace(start, init=init, trained_on=tuple(splits))
        if source.format == "caffe" and source.num_classes is None and path.name.startswith("init"):
            return replace(start, init=AUTHORS[source.network["backbone"]], trained_on=())
        return start

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
        return ", ".join([*known, *images])

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


def _published(name: str, source: Source) -> tuple[str, list[str]] | None:
    for pattern, (init, splits) in PUBLISHED.items():
        if not re.fullmatch(pattern, name):
            continue
        if init != "authors":
            return init, splits
        if source.num_classes == 21:
            return AUTHORS[source.network["backbone"]], splits
    return None
