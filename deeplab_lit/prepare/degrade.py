"""Write the masks of a data set's training split with errors that are put in on purpose.

The masks lie in <out>/masks, as `mask_dir` takes them; degraded.json says how they were made and
how good they are, and examples.png shows some. What becomes of an image depends on its id and the
seed alone. A mask says in its PNG what was done to it, so that a second start goes on.

Letters: C classes.
"""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from deeplab_lit.atomic import atomic_write
from deeplab_lit.data import SegmentationData
from deeplab_lit.data.check import first_of
from deeplab_lit.data.image import DataError, read_mask
from deeplab_lit.data.split import Split
from deeplab_lit.pictures.masks import comparison, palette_image
from deeplab_lit.prepare.mask_errors import FATES, MaskErrors, degraded
from deeplab_lit.progress_bar import progress_bar
from deeplab_lit.scoring.metric import Scores
from deeplab_lit.text import plural

SUMMARY, MASKS, EXAMPLES = "degraded.json", "masks", "examples.png"
DONE = "degraded"  # text in a mask's PNG: what was done to it
SHOWN = 6  # images in examples.png


def degrade(
    data: SegmentationData, out: Path, errors: MaskErrors, seed: int, num_workers: int
) -> dict[str, Any]:
    """Write the masks that are not there yet, degraded.json and examples.png; print a table.

    Args:
        data: the data set, whose training split is taken.
        out: folder of all results.
        errors: how much is wrong.
        seed: another number gives other errors.
        num_workers: threads.

    Returns:
        What degraded.json holds.

    Raises:
        DataError: the data set has pseudo-labels in place of the ground truth; images or masks
            cannot be read; or `out` holds masks that were made in another way.
    """
    if data.mask_dir is not None:
        raise DataError(
            f"--data.mask_dir {data.mask_dir}: degrade takes the ground truth, so leave it out"
        )
    if seed < 0:
        raise DataError(f"--seed must be 0 or more, got {seed}")
    split, title, names = data.training(), data.label(data.train_split), list(data.classes)
    settings = {
        "data": title,
        "images": len(split.ids),
        "ids_sha256": hashlib.sha256("\n".join(sorted(split.ids)).encode()).hexdigest(),
        "classes": names,
        "seed": seed,
        **asdict(errors),
    }
    _begin(out / SUMMARY, settings)
    writer = _Writer(data, split, out / MASKS, errors, seed)
    if writer.background is None:
        print(f"{title}: no class is called background, so what is taken away becomes void")
    counts = _write_all(writer, title, num_workers)
    content = {"finished": True, **settings, **_summary(counts, names)}
    _save_examples(out / EXAMPLES, writer)
    _save(out / SUMMARY, content)
    print(in_words(content))
    return content


class _Writer:
    """Writes the degraded masks.

    What was done to a mask, or to many, is a table (C+1,4+C+1) int64: for each class the number of
    objects of each fate, then its pixels by their class in the degraded mask; row C is void in the
    ground truth, and the last column void in the degraded mask.

    Args:
        data: the data set.
        split: to be degraded.
        folder: of the masks.
        errors: how much is wrong.
        seed: of the errors.
    """

    def __init__(
        self, data: SegmentationData, split: Split, folder: Path, errors: MaskErrors, seed: int
    ) -> None:
        names = list(data.classes)
        self.background = names.index("background") if "background" in names else None
        self.classes, self.split, self.folder = data.classes, split, folder
        self.errors, self.seed = errors, seed

    def path(self, index: int) -> Path:
        """Return the file of an image's mask."""
        return self.folder / f"{self.split.ids[index]}.png"

    def known(self, index: int) -> np.ndarray | None:
        """Read what was done to a mask that is there; None where there is none of ours."""
        table = self._table()
        try:
            with Image.open(self.path(index), formats=["PNG"]) as mask:
                *place, values = json.loads(mask.info[DONE])
            table[tuple(place)] = values
        except (OSError, SyntaxError, ValueError, KeyError, IndexError, TypeError):
            return None
        return table

    def write(self, index: int) -> np.ndarray | str:
        """Write a mask; return what was done to it, or what is wrong with the image."""
        try:
            _, truth = self.split.read(index)
        except DataError as error:
            return str(error)
        digest = hashlib.sha256(self.split.ids[index].encode()).digest()
        rng = np.random.default_rng([self.seed, int.from_bytes(digest)])
        result = degraded(truth, self.errors, self.background, rng)
        table = self._table()
        np.add.at(table, (result.classes, result.fates), 1)
        void = len(self.classes)
        rows, columns = np.minimum(truth, void), np.minimum(result.mask, void)
        cells = rows.astype(np.int64) * (void + 1) + columns
        pixels = np.bincount(cells.ravel(), minlength=(void + 1) ** 2)
        table[:, len(FATES) :] = pixels.reshape(void + 1, void + 1)
        about, place = PngInfo(), np.nonzero(table)
        about.add_text(DONE, json.dumps([*map(np.ndarray.tolist, place), table[place].tolist()]))
        picture = palette_image(result.mask, list(self.classes.values()))
        with atomic_write(self.path(index)) as file:
            picture.save(file, format="PNG", pnginfo=about)
        return table

    def _table(self) -> np.ndarray:
        number = len(self.classes) + 1
        return np.zeros((number, len(FATES) + number), np.int64)


def _begin(path: Path, settings: dict[str, Any]) -> None:
    """Write the settings, unless they are there.

    Raises:
        DataError: others are there, or the file is damaged.
    """
    if not path.is_file():
        _save(path, {"finished": False, **settings})
        return
    try:
        there = json.loads(path.read_text("utf-8"))
        known = {name: there[name] for name in settings}
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path} is damaged: choose another --out") from error
    if name := next((name for name in settings if known[name] != settings[name]), None):
        raise DataError(
            f"{path}: the masks there were made with {name} {known[name]}, and now it is "
            f"{settings[name]}: choose another --out"
        )


def _write_all(writer: _Writer, title: str, num_workers: int) -> np.ndarray:
    """Write the masks that are not there yet; return the sum of what was done to all.

    Raises:
        DataError: images that cannot be read; the masks of all others are written.
    """
    number = len(writer.split.ids)
    known = [writer.known(index) for index in range(number)]
    todo = [index for index in range(number) if known[index] is None]
    if len(todo) < number:
        print(f"{number - len(todo):,} of {plural(number, 'mask')} are there already")
    found, problems = [table for table in known if table is not None], []
    with ThreadPoolExecutor(max(num_workers, 1)) as pool:
        try:
            results = pool.map(writer.write, todo)
            for result in progress_bar(
                results, desc=f"degrading {title}", total=len(todo), unit=" masks", leave=False
            ):
                if isinstance(result, str):
                    problems.append(result)
                else:
                    found.append(result)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if problems:
        raise DataError("\n".join(first_of(problems, title, number)))
    return np.sum(found, axis=0)


def _summary(table: np.ndarray, names: list[str]) -> dict[str, Any]:
    """Return how good the masks are, by the pixels that both they and the ground truth label."""
    pixels = table[:, len(FATES) :]
    scores = Scores(torch.from_numpy(pixels[:-1, :-1].copy())).as_dict(names)
    objects = table[:-1, : len(FATES)]
    return {
        "share_void": float(pixels[:, -1].sum() / pixels.sum()),
        "miou": scores["miou"],
        "iou": scores["iou"],
        "objects": {
            name: dict(zip(FATES, row, strict=True))
            for name, row in zip(names, objects.tolist(), strict=True)
        },
    }


def in_words(content: dict[str, Any]) -> str:
    """Return the content of degraded.json as a table: objects and IoU of each class, and sums."""
    names = content["classes"]
    rows = [list(content["objects"][name].values()) for name in names]
    sums = np.sum(rows, axis=0).tolist()
    width = max(map(len, [*names, "all, mIoU"]))
    lines = [" " * width + "".join(f"{title:>11}" for title in ("objects", *FATES, "IoU"))]
    lines += [
        _row(name, width, fates, content["iou"][name])
        for name, fates in zip(names, rows, strict=True)
    ]
    lines += ["─" * len(lines[0]), _row("all, mIoU", width, sums, content["miou"])]
    lines.append(
        f"{content['data']}: {plural(content['images'], 'mask')} degraded, "
        f"{content['share_void']:.2%} of the pixels void. The IoU is that with the ground truth, "
        "of the pixels that both label."
    )
    return "\n".join(lines)


def _row(name: str, width: int, fates: list[int], iou: float | None) -> str:
    score = "–" if iou is None else f"{100 * iou:.2f}"
    return f"{name:<{width}}" + "".join(f"{n:>11,}" for n in (sum(fates), *fates)) + f"{score:>11}"


def _save(path: Path, content: dict[str, Any]) -> None:
    with atomic_write(path) as place:
        place.write_text(json.dumps(content, indent=2) + "\n", "utf-8")


def _save_examples(path: Path, writer: _Writer) -> None:
    """Draw images with their masks before and after."""
    number = len(writer.split.ids)
    shown = sorted({i * number // SHOWN for i in range(SHOWN)})
    samples = [(*writer.split.read(i), read_mask(writer.path(i))) for i in shown]
    picture = comparison(samples, writer.classes, ("image", "truth", "degraded"))
    with atomic_write(path) as place:
        picture.save(place, format="PNG")
