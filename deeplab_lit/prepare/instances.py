"""Instances as COCO's instances_*.json lists them, and label maps drawn from them.

Letters: H×W image.
"""

import json
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

import numpy as np

from deeplab_lit.data.decode import UNREADABLE
from deeplab_lit.data.image import DataError, size_in_file
from deeplab_lit.progress_bar import progress_bar
from deeplab_lit.text import plural

Overlap = Literal["last", "first"]
# polygons, (2N,) float64 of x, y, x, y …; or a run-length encoding as COCO's tools have it
Outline = list[np.ndarray] | dict[str, Any]
SECTIONS: dict[str, dict[str, type]] = {  # of the file → what each of its entries has
    "images": {"id": int, "file_name": str, "width": int, "height": int},
    "categories": {"id": int, "name": str},
    "annotations": {"id": int, "image_id": int, "category_id": int},
}

DAMAGED = (  # issue 1534 of pjreddie/darknet
    "Put the official image there: of COCO_train2014_000000167126.jpg, damaged copies are about"
)


class Instance(NamedTuple):
    """One object in an image.

    Attributes:
        id: of the annotation.
        label: class index, 1…254.
        outline: of it.
    """

    id: int
    label: int
    outline: Outline


class LabeledImage(NamedTuple):
    """An image and the instances in it that are no crowds.

    Attributes:
        name: of the file.
        size: (width, height) in pixels.
        instances: in the order of the file's list.
        crowds: how many more annotations there are, of crowds.
    """

    name: str
    size: tuple[int, int]
    instances: list[Instance]
    crowds: int = 0


def read_instances(path: Path, categories: Mapping[int, str]) -> list[LabeledImage]:
    """Read all images and instances of a file, and check them; say what is passed over.

    Args:
        path: of the file.
        categories: id → name. Their places, from 1, are the class indices.

    Raises:
        DataError: it cannot be read, has other categories, names an image or a category that it
            does not list, or has an outline that is none or lies outside of its image.
    """
    content = _load(path)
    named = {entry["id"]: entry["name"] for entry in content["categories"]}
    if named != categories:
        odd = sorted(named.items() ^ categories.items())[0]
        raise DataError(
            f"{path}: its categories are not COCO's {len(categories)} (category {odd[0]}, "
            f"{odd[1]}, is in one of the two alone): take the official file"
        )
    labels = {id: label for label, id in enumerate(sorted(categories), 1)}
    images: dict[int, LabeledImage] = {}
    for entry in content["images"]:
        name, size = PurePosixPath(entry["file_name"]).name, (entry["width"], entry["height"])
        if entry["id"] in images:
            raise DataError(f"{path}: two images have the id {entry['id']}: take the official file")
        images[entry["id"]] = LabeledImage(name, size, [])
    if len({image.name for image in images.values()}) < len(images):
        raise DataError(f"{path}: two images have the same file_name: take the official file")
    short = clipped = 0
    for entry in progress_bar(
        content["annotations"], desc=f"checking {path.name}", unit=" outlines"
    ):
        image, label = images.get(entry["image_id"]), labels.get(entry["category_id"])
        where = f"{path}: annotation {entry['id']}"
        if image is None:
            raise DataError(
                f"{where} is of image {entry['image_id']}, which the file does not list"
            )
        if label is None:
            raise DataError(
                f"{where} has the category {entry['category_id']}, which is none of COCO's "
                f"{len(labels)} ({min(labels)}…{max(labels)}, with gaps)"
            )
        if entry.get("iscrowd"):
            images[entry["image_id"]] = image._replace(crowds=image.crowds + 1)
            continue
        outline, is_clipped = _outline(where, entry.get("segmentation"), *image.size)
        clipped += is_clipped
        if outline:
            image.instances.append(Instance(entry["id"], label, outline))
        else:
            short += 1
    crowds = sum(image.crowds for image in images.values())
    said = [f"{plural(crowds, 'crowd')} left as background"] if crowds else []
    said += [f"{plural(clipped, 'outline')} cut off at the border of the image"] if clipped else []
    said += [f"{plural(short, 'instance')} of fewer than three points passed over"] if short else []
    print(f"{path.name}: {'; '.join(said) or 'every annotation is drawn'}", flush=True)
    return list(images.values())


def draw(image: LabeledImage, folder: Path, overlap: Overlap) -> np.ndarray:
    """Return the class of each pixel of an image, 0 where no instance is, (H,W) uint8.

    An instance covers the pixels that COCO's own annToMask gives it.

    Args:
        image: to draw.
        folder: of its file.
        overlap: where instances overlap, the one that is listed "last" covers the others (ReCAM's
            and LPCAM's annToMask.py), or the "first" (coco2voc).

    Raises:
        DataError: the file cannot be read or has another size; or an outline is broken.
    """
    path, (width, height) = folder / image.name, image.size
    try:
        size = size_in_file(path)
    except UNREADABLE as error:
        raise DataError(f"{path}: cannot be read as an image ({error}). {DAMAGED}") from error
    if size != image.size:
        raise DataError(
            f"{path} has {size[0]}×{size[1]} pixels, but its instances were drawn on "
            f"{width}×{height}: put the official image there"
        )
    mask = np.zeros((height, width), np.uint8)
    for instance in image.instances if overlap == "last" else reversed(image.instances):
        try:
            mask[_inside(instance.outline, height, width)] = instance.label
        except (ValueError, IndexError) as error:
            raise DataError(
                f"{path}: annotation {instance.id} cannot be drawn ({error}): take the official "
                "instances"
            ) from error
    return mask


def _inside(outline: Outline, height: int, width: int) -> np.ndarray:
    """Return which pixels are inside of an outline, (H,W) bool, as COCO.annToMask does."""
    from pycocotools.mask import decode, frPyObjects, merge

    if isinstance(outline, list):
        encoded = merge(frPyObjects(outline, height, width))
    elif isinstance(outline["counts"], list):
        encoded = frPyObjects(outline, height, width)
    else:
        encoded = outline
    return decode(encoded).astype(bool)


def _outline(where: str, segmentation: Any, width: int, height: int) -> tuple[Outline, bool]:
    """Check an outline.

    Args:
        where: the annotation, as messages name it.
        segmentation: of the file.
        width: of the image, in pixels.
        height: of the image, in pixels.

    Returns:
        The outline without the polygons of one or two points, which annToMask would take for a box
        if the first has two; and whether a point lies more than a pixel outside of the image.

    Raises:
        DataError: it is none, or lies outside.
    """
    size = f"the image of {width}×{height}"
    if isinstance(segmentation, dict):
        counts = segmentation.get("counts")
        whole = isinstance(counts, str) or (
            isinstance(counts, list)
            and all(isinstance(count, int) and count >= 0 for count in counts)
            and sum(counts) == width * height
        )
        if segmentation.get("size") != [height, width] or not whole:
            raise DataError(f"{where} has a run-length encoding that does not fit {size}")
        return segmentation, False
    polygons, is_clipped = [], False
    for given in segmentation if isinstance(segmentation, list) else [None]:
        points = _numbers(given)
        if points is None or len(points) % 2:
            raise DataError(f"{where} has no polygons [x, y, x, y, …], and no run-length encoding")
        if len(points) < 6:
            continue
        low, high = points.reshape(-1, 2).min(0), points.reshape(-1, 2).max(0)
        reach = np.array([width, height], np.float64)
        # a line at the border is none outside: some polygons of the official files have no area
        if not ((low >= -reach) & (high <= 2 * reach) & (low <= reach + 1) & (high >= -1)).all():
            raise DataError(
                f"{where} has a polygon from {low[0]:g}, {low[1]:g} to {high[0]:g}, {high[1]:g}, "
                f"outside of {size}: is the file of images of another size?"
            )
        is_clipped |= bool((low < -1).any() or (high > reach + 1).any())
        polygons.append(points)
    return polygons, is_clipped


def _numbers(given: Any) -> np.ndarray | None:
    """Return a list of numbers as float64; None for anything else."""
    try:
        numbers = np.asarray(given if isinstance(given, list) else None)
    except ValueError:  # lists in it
        return None
    is_list = numbers.ndim == 1 and numbers.dtype.kind in "iuf"
    return numbers.astype(np.float64) if is_list else None


def _load(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Read the file, and check that it has all entries, and they all fields.

    Raises:
        DataError: it does not.
    """
    print(f"reading {path} ({path.stat().st_size / 1e6:,.0f} MB)", flush=True)
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path} is no JSON, or not all of it ({error}): delete it and run the command again"
        ) from error
    for section, fields in SECTIONS.items():
        entries = content.get(section) if isinstance(content, dict) else None
        if not isinstance(entries, list):
            raise DataError(f"{path} has no list of {section}: is it COCO's instances_*.json?")
        for number, entry in enumerate(entries):
            if not isinstance(entry, dict) or not all(
                isinstance(entry.get(field), kind) for field, kind in fields.items()
            ):
                raise DataError(
                    f"{path}: entry {number} of {section} has not all of {', '.join(fields)}: is "
                    "it COCO's instances_*.json?"
                )
    return content
