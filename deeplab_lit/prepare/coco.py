"""COCO 2014: the official images, and label maps drawn from its instances."""

import shlex
from functools import partial
from pathlib import Path

from deeplab_lit.atomic import atomic_folder, check_room
from deeplab_lit.data.coco import CATEGORIES
from deeplab_lit.data.image import DataError
from deeplab_lit.data.paths import matching
from deeplab_lit.prepare.archives import Archive, Source
from deeplab_lit.prepare.coco_stuff import COCO
from deeplab_lit.prepare.instances import LabeledImage, Overlap, draw, read_instances
from deeplab_lit.prepare.label_maps import convert, write_list
from deeplab_lit.prepare.unpack import under, unpack
from deeplab_lit.text import first_few, plural

# SHA-256 as in TensorFlow Datasets' url_checksums/coco.txt
IMAGES = {
    "train2014": Archive(
        "train2014.zip",
        f"{COCO}/train2014.zip",
        "sha256:ede4087e640bddba550e090eae701092534b554b42b05ac33f0300b984b31775",
    ),
    "val2014": Archive(
        "val2014.zip",
        f"{COCO}/val2014.zip",
        "sha256:fe9be816052049c34717e077d9e34aa60814a55679f804cd043e3cbee3b9fde0",
    ),
}
INSTANCES = Archive(
    "annotations_trainval2014.zip",
    "http://images.cocodataset.org/annotations/annotations_trainval2014.zip",
    "sha256:031296bbc80c45a1d1f76bf9a90ead27e94e99ec629208449507a4917a3bf009",
)
OFFICIAL = {"train2014": 82_783, "val2014": 40_504}
LISTED = {"train2014": 82_081, "val2014": 40_137}  # in the lists of CLIP-ES and L2G
MASKS: dict[Overlap, str] = {"last": "masks", "first": "masks_first"}
ROOM = 10_000  # bytes a mask, a guess on the high side


def prepare_coco2014(source: Source, overlap: Overlap = "last") -> str:
    """Put COCO 2014 in place, and write masks of its 80 categories; return its options.

    Beside the masks come lists: of the images that have an annotation, and of the categories in
    each, for `predict --image_labels`.

    What lies in the root in the usual places (train2014/, val2014/, annotations/) is used.

    Args:
        source: where the archives come from.
        overlap: which of the instances that overlap covers the others; see `draw`.

    Raises:
        DataError: an archive cannot be had, the numbers are not the published ones, or something
            is wrong with the instances or an image.
    """
    import pycocotools  # noqa: F401 - if it is missing, that is said before 20 GB are fetched

    masks, lists = source.root / MASKS[overlap], source.root / "lists"
    for split in OFFICIAL:
        ids, labels = lists / f"{split}.txt", lists / f"image_labels_{split}.txt"
        if (masks / split).is_dir() and ids.is_file() and labels.is_file():
            continue
        folder, instances = _images(source, split), _instances(source, split)
        images = _labeled(source, split, folder, read_instances(instances, CATEGORIES))
        annotated = {Path(i.name).stem: i for i in images if i.instances or i.crowds}
        print(f"{split}: {_annotated(split, len(annotated), len(images))}", flush=True)
        write_list(ids, list(annotated))
        write_list(labels, [_with_labels(id, image) for id, image in annotated.items()])
        if (masks / split).is_dir():
            continue
        with atomic_folder(masks / split) as part:
            jobs = [(image, part / f"{Path(image.name).stem}.png") for image in images]
            check_room(part, ROOM * sum(not target.is_file() for _, target in jobs), "--root")
            convert(jobs, partial(draw, folder=folder, overlap=overlap), f"drawing {split}")
    further = "" if overlap == "last" else f" --data.masks {MASKS[overlap]}"
    return f"--data Coco --data.root {shlex.quote(str(source.root))}{further}"


def _images(source: Source, split: str) -> Path:
    """Return the folder of the images of a split, unpacked if it is not there yet."""
    folder = source.root / split
    if not folder.is_dir():
        archive = source.fetch(IMAGES[split])
        with atomic_folder(folder) as part:
            unpack(archive, part, under(split))
    return folder


def _instances(source: Source, split: str) -> Path:
    """Return instances_<split>.json, unpacked if it is not there yet."""
    path = source.root / f"annotations/instances_{split}.json"
    if not path.is_file():
        inside = under("annotations")

        def rename(name: str) -> str | None:
            return path.name if inside(name) == path.name else None

        unpack(source.fetch(INSTANCES), path.parent, rename)
    return path


def _labeled(
    source: Source, split: str, folder: Path, images: list[LabeledImage]
) -> list[LabeledImage]:
    """Return the images of the instances' file that lie in the folder, in the order of names.

    Raises:
        DataError: the numbers are not the published ones, or an image is in one of the two alone,
            and only official data is accepted.
    """
    there, listed = {p.name for p in matching(folder, "*.jpg")}, {image.name for image in images}
    counts = {f"{split}/": len(there), f"instances_{split}.json": len(listed)}
    source.expect("COCO 2014", counts, dict.fromkeys(counts, OFFICIAL[split]))
    for alone, where in (
        (there - listed, f"instances_{split}.json lacks"),
        (listed - there, f"{folder} lacks"),
    ):
        if alone:
            sentence = f"{where} {plural(len(alone), 'image')}: {first_few(sorted(alone))}"
            if not source.unofficial:
                raise DataError(f"{sentence}. Put the official files there")
            print(f"{sentence}; no mask is written")
    return sorted((image for image in images if image.name in there), key=lambda i: i.name)


def _with_labels(id: str, image: LabeledImage) -> str:
    """Return an image with its categories, which count from 0: a line as in CLIP-ES' lists."""
    labels = sorted({instance.label - 1 for instance in image.instances})
    return " ".join(map(str, (id, *labels)))


def _annotated(split: str, number: int, of: int) -> str:
    """Say how many images have an annotation, and how many published lists have."""
    said = f"{number:,} of {of:,} images have an annotation"
    return said if number == LISTED[split] else f"{said}; published lists have {LISTED[split]:,}"
