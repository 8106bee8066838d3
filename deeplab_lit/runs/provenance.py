"""Provenance: where weights come from and which data they have seen; written into every file.

A plain dictionary, so that `weights_only` reading accepts it:

- source, sha256: name and hash of the file that training or conversion started from, or null
- init: what the backbone was first trained on: "imagenet", "coco", "none" or "unknown"
- trained_on: splits like "VOC:train_aug", oldest first; "unknown" among them where it is
- version: of deeplab_lit
- origin: the provenance that stood in the source, or null

What was typed is not in it, for files are handed on: it may hold paths and keys. Files that were
written earlier have it, as `command`; it is dropped when they are read.
"""

import re
from pathlib import Path
from typing import Any

from deeplab_lit.network.weights.read import sha256_of
from deeplab_lit.network.weights.formats.source import Source
from deeplab_lit.network.weights.imagenet import imagenet_file

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
    r"GTA2Cityscapes_multi-.*\.pth": (UNKNOWN, ["GTA5:train", "Cityscapes:train"]),
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


def of_file(path: str | Path, source: Source) -> dict[str, Any]:
    """The provenance of what starts from a file; the version is still to be added.

    Args:
        path: the file.
        source: what was read from it.
    """
    path = Path(path)
    init, trained_on = UNKNOWN, [UNKNOWN]
    if source.provenance is not None:
        init = source.provenance.get("init", UNKNOWN)
        trained_on = source.provenance.get("trained_on", [UNKNOWN])
    elif published := _published(path.name, source):
        init, trained_on = published
    elif source.format == "caffe" and source.num_classes is None and path.name.startswith("init"):
        init, trained_on = AUTHORS[source.network["backbone"]], []
    origin = None if source.provenance is None else without_commands(source.provenance)
    return _entry(path.name, sha256_of(path), init, list(trained_on), origin)


def of_start(weights: str, source: Source | None) -> dict[str, Any]:
    """As `of_file`, of what `--model.weights` names; `source` is what `initialize` has read."""
    if source is None:
        return _entry(None, None, "none", [], None)
    if weights != "imagenet":
        return of_file(weights, source)
    file, _ = imagenet_file(source.network["backbone"])
    return _entry(file.name, sha256_of(file) if file.is_file() else None, "imagenet", [], None)


def of_checkpoint(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """What a checkpoint of ours says; what it does not say is unknown."""
    said = without_commands(checkpoint.get("provenance") or {})
    return _entry(None, None, UNKNOWN, [UNKNOWN], None) | said


def without_commands(provenance: dict[str, Any]) -> dict[str, Any]:
    """The same without the command lines that earlier versions wrote into it."""
    return {
        key: without_commands(value) if isinstance(value, dict) else value
        for key, value in provenance.items()
        if key != "command"
    }


def completed(provenance: dict[str, Any], version: str, *seen: str) -> dict[str, Any]:
    """The provenance of a file about to be written.

    Args:
        provenance: of what it starts from.
        version: of deeplab_lit.
        seen: splits that it is trained on besides.
    """
    trained_on = [*provenance["trained_on"]]
    trained_on += [entry for entry in seen if entry not in trained_on]
    return provenance | {"trained_on": trained_on, "version": version}


def _published(name: str, source: Source) -> tuple[str, list[str]] | None:
    for pattern, (init, splits) in PUBLISHED.items():
        if not re.fullmatch(pattern, name):
            continue
        if init != "authors":
            return init, splits
        if source.num_classes == 21:
            return AUTHORS[source.network["backbone"]], splits
    return None


def _entry(
    source: str | None,
    sha256: str | None,
    init: str,
    trained_on: list[str],
    origin: dict[str, Any] | None,
) -> dict[str, Any]:
    values = {"source": source, "sha256": sha256, "init": init, "trained_on": trained_on}
    return values | {"version": None, "origin": origin}
