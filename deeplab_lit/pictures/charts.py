"""Scores as charts, PNG files drawn by Matplotlib; and in a notebook what the CRF's parameters do.

Letters: C classes · H×W image.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from deeplab_lit.atomic import atomic_write
from deeplab_lit.crf import CRFError, DenseCRF
from deeplab_lit.pictures.masks import comparison, short
from deeplab_lit.types import VOID, Classes

DPI = 120
LONGEST_NAME = 80  # characters, in a legend
MOST_NUMBERS = 25  # classes, up to which a confusion matrix has its numbers in it


def confusion_matrix(confusion: Tensor, names: Sequence[str], path: Path) -> None:
    """Draw where the pixels of each class went, in percent of the class; absent classes are gray.

    Args:
        confusion: (C,C) pixels by true class (row) and predicted class (column); or (C,C+1), the
            last column being pixels without a class.
        names: of the classes.
        path: of the picture.
    """
    pixels = confusion.cpu().numpy().astype(np.float64)
    total = pixels.sum(1, keepdims=True)
    share = np.divide(100 * pixels, total, out=np.full_like(pixels, np.nan), where=total > 0)
    words = [short(name) for name in names]
    side = max(0.36 * len(names), 3) + 2 + _more_room(words)
    figure, (axes,) = _figure(1, (side + 0.6, side))
    axes.set_facecolor("lightgrey")
    matrix = axes.imshow(share, "Blues", vmin=0, vmax=100)
    columns = [*words, "void"][: share.shape[1]]
    axes.set_xticks(range(len(columns)), columns, rotation=90, parse_math=False)
    axes.set_yticks(range(len(names)), words, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("truth")
    axes.set_title("% of each true class")
    if len(names) <= MOST_NUMBERS:
        for (row, column), value in np.ndenumerate(share):
            if value >= 0.5:
                color = "white" if value > 55 else "black"
                axes.text(column, row, f"{value:.0f}", c=color, ha="center", va="center", size=7)
    figure.colorbar(matrix, fraction=0.046)
    _save(figure, path)


def class_bars(iou: dict[str, Sequence[float]], names: Sequence[str], path: Path) -> None:
    """Draw the IoU of each class as bars, side by side for several series; an absent one is "–".

    Args:
        iou: name of a series → (C,) in 0…1, NaN for a class without IoU.
        names: of the classes.
        path: of the picture.
    """
    words = [short(name) for name in names]
    figure, (axes,) = _figure(1, (max(0.42 * len(names) + 1.2, 6), 3.6 + _more_room(words)))
    width = 0.8 / len(iou)
    for i, (label, values) in enumerate(iou.items()):
        places = np.arange(len(names)) + (i - (len(iou) - 1) / 2) * width
        heights = 100 * np.asarray(values, np.float64)
        mean = float(np.nanmean(heights)) if np.isfinite(heights).any() else np.nan
        axes.bar(places, heights, width, label=f"{label} (mean {mean:.2f})")
        for place in places[np.isnan(heights)]:
            axes.text(place, 1, "–", ha="center")
    axes.set_xticks(range(len(names)), words, rotation=90, parse_math=False)
    axes.set_ylabel("IoU (%)")
    axes.set_ylim(0, 100)
    axes.set_xlim(-0.6, len(names) - 0.4)
    axes.grid(axis="y", alpha=0.4)
    axes.set_axisbelow(True)
    figure.legend(loc="outside upper center", ncols=len(iou), frameon=False)
    _save(figure, path)


def band_curves(
    curves: dict[str, Sequence[float]], widths: Sequence[int], around: str, path: Path
) -> None:
    """Plot mIoU by the width of the band around borders (trimap), as in the paper's Fig. 10.

    Args:
        curves: name → mIoU in 0…1 at each width, NaN where a band has no pixel.
        widths: in pixels.
        around: "void" or "classes": the borders meant, see scoring/trimap.py.
        path: of the picture.
    """
    borders = {"void": "void pixels", "classes": "the borders of classes"}[around]
    figure, (axes,) = _figure(1, (6, 4.2 + 0.2 * len(curves)))
    lines = [axes.plot(widths, 100 * np.asarray(iou))[0] for iou in curves.values()]
    axes.set_xlabel(f"width of the band around {borders} (pixels)")
    axes.set_ylabel("mIoU in the band (%)")
    axes.set_xlim(0, max(widths))
    axes.grid(alpha=0.4)
    legend(figure, lines, list(curves), loc="outside upper left", frameon=False)
    _save(figure, path)


def heat_maps(
    scores: dict[tuple[float, float, float], float], names: Sequence[str], path: Path
) -> None:
    """Draw scores of three parameters: a map of the first two for each value of the third.

    Args:
        scores: parameters → score in 0…1; the best is in red.
        names: of the parameters.
        path: of the picture.
    """
    best = max(scores, key=lambda point: scores[point])
    low, high = min(scores.values()), max(scores.values())
    thirds = sorted({point[2] for point in scores})
    figure, panels = _figure(len(thirds), (5.2, 2.6), columns=2)
    for third, axes in zip(thirds, panels, strict=False):
        points = [point for point in scores if point[2] == third]
        rows, columns = (sorted({point[i] for point in points}) for i in (0, 1))
        values = np.full((len(rows), len(columns)), np.nan)
        for point in points:
            place = rows.index(point[0]), columns.index(point[1])
            values[place] = 100 * scores[point]
            text = f"{values[place]:.2f}"
            weight, color = ("bold", "red") if point == best else ("normal", "black")
            axes.text(*place[::-1], text, c=color, weight=weight, ha="center", va="center", size=7)
        axes.imshow(
            values, "Greens", vmin=100 * low, vmax=100 * (high + (high - low) / 2), aspect="auto"
        )
        axes.set_xticks(range(len(columns)), [f"{x:g}" for x in columns])
        axes.set_yticks(range(len(rows)), [f"{x:g}" for x in rows])
        axes.set_xlabel(names[1])
        axes.set_ylabel(names[0])
        axes.set_title(f"{names[2]} {third:g}", size=10)
    _save(figure, path)


def legend(place: Any, handles: Sequence[Any], names: Sequence[str], **options: Any) -> Any:
    """Add a legend whose words are the names as they are.

    Matplotlib would read a formula between two dollars, and leave out what begins with "_".

    Args:
        place: axes, or a figure.
        handles: what is named.
        names: of each.
        options: of Matplotlib's `legend`.
    """
    box = place.legend(handles, ["?"] * len(names), **options)
    for text, name in zip(box.get_texts(), names, strict=True):
        text.set_parse_math(False)
        text.set_text(short(name, LONGEST_NAME))
    return box


def _more_room(words: Sequence[str]) -> float:
    """Return the inches that names along an axis take beyond those of some 15 letters."""
    return 0.09 * max(max(map(len, words)) - 15, 0)


def _figure(panels: int, size: tuple[float, float], columns: int = 1) -> tuple:
    """Make a figure and its axes, `size` inches each; no window, no global state."""
    from matplotlib.figure import Figure

    columns = min(columns, panels)
    rows = -(-panels // columns)
    figure = Figure((columns * size[0], rows * size[1]), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in axes[panels:]:
        unused.remove()
    return figure, axes[:panels]


def _save(figure: Any, path: Path) -> None:
    with atomic_write(path) as place, without_font_warnings():
        figure.savefig(place, format="png", dpi=DPI)


@contextmanager
def without_font_warnings() -> Iterator[None]:
    """Draw without a warning for each sign that no font here has; a box stands for it."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


def rough_probabilities(
    mask: np.ndarray, num_classes: int, cell: int = 16, certainty: float = 0.9
) -> np.ndarray:
    """Turn a mask into coarse probabilities: averaged over cells, blurred, upsampled bilinearly.

    The blur is over 3×3 cells, so the outline is as coarse as that of a network with such cells,
    and as unsure along its edges.

    Args:
        mask: (H,W) uint8: classes, and 255 where all are equally likely.
        num_classes: C.
        cell: side in pixels.
        certainty: 0…1, probability of the mask's class; the rest goes to all classes alike.

    Returns:
        (C,H,W) float32; the values of a pixel sum to 1.

    Raises:
        CRFError: the mask has a class of C or more.
    """
    wrong = set(np.unique(mask).tolist()) - {*range(num_classes), VOID}
    if wrong:
        raise CRFError(
            f"a mask of {num_classes} classes has 0…{num_classes - 1} and {VOID}, "
            f"this one also {sorted(wrong)}"
        )
    height, width = mask.shape
    scores = np.stack([mask == label for label in range(num_classes)]).astype(np.float32)
    scores[:, mask == VOID] = 1 / num_classes
    cells = F.avg_pool2d(torch.from_numpy(scores)[None], cell, ceil_mode=True)
    cells = F.avg_pool2d(cells, 3, stride=1, padding=1, count_include_pad=False)
    smooth = F.interpolate(cells, scale_factor=cell, mode="bilinear")[0, :, :height, :width]
    return (certainty * smooth + (1 - certainty) / num_classes).contiguous().numpy()


def small_multiples(
    image: np.ndarray,
    probabilities: np.ndarray,
    classes: Classes,
    name: str,
    values: Sequence[float],
    width: int = 180,
) -> Image.Image:
    """Draw an image, its labels before the CRF, and those after it for each value of a parameter.

    Args:
        image: (H,W,3) uint8 RGB.
        probabilities: (C,H,W), of at most 255 classes.
        classes: names and colors.
        name: of the parameter, as `DenseCRF` has it; the others keep its defaults.
        values: one or more.
        width: of each picture in pixels.

    Raises:
        CRFError: a value that the parameter cannot have.
    """
    settings: list[dict[str, Any]] = [{name: value} for value in values]
    after = [DenseCRF(**parameters)(image, probabilities) for parameters in settings]
    masks = [scores.argmax(0).astype(np.uint8) for scores in (probabilities, *after)]
    titles = ("image", "before", *(f"{name} {value}" for value in values))
    return comparison([(image, *masks)], classes, titles, width)
