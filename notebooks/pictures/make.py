"""Draw this project's pictures again: python -m notebooks.pictures.make [NAME…] [--run RUN].

Each function below draws the picture of its name, with commands of this project. Those of Shapes
need a run of the first command, `python -m deeplab_lit.fit` (--run; default: the newest in
runs/shapes). `first` shows photographs that come with scikit-image (`pip install scikit-image`),
`report_run` needs Chromium. atrous_rates.png is the plot.png of the command

    python -m deeplab_lit.ablate configs/ablations/shapes/atrous_rates.yaml --jobs 2 --crf
"""

import argparse
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import yaml
from PIL import Image, ImageDraw, ImageFont

from deeplab_lit import DenseCRF, Segmenter, Shapes, load, plot_trimap, refine, validate
from deeplab_lit.ablate.plots import fields_plot
from deeplab_lit.data.image import read_image, read_mask
from deeplab_lit.network.receptive_field import (
    effective_fields,
    middle_pixel,
    rate_of,
    side_of,
)
from deeplab_lit.pictures.masks import comparison, overlay, palette, stack
from deeplab_lit.types import Classes

HERE = Path(__file__).parent
OUTLINES = yaml.safe_load((HERE / "outlines.yaml").read_text("utf-8"))
COLORS: Classes = {
    "background": (0, 0, 0),
    "flag": (60, 120, 230),
    "rocket": (60, 190, 90),
    "person": (220, 40, 60),
    "helmet": (250, 180, 30),
    "saucer": (60, 140, 230),
    "cup": (240, 200, 40),
    "spoon": (220, 60, 200),
}
WIDTH = 1600  # pixels of first.jpg, which pages show half as wide
GAP = 6  # between its pictures
PAGE = 800, 850  # of report_run.png, which has two pixels for each of these
SHOWN = 3  # of Shapes' val split, in first.jpg


def first(run: Path) -> None:
    """Draw first.jpg: photographs and the CRF, Shapes and the first network."""
    image, *masks = _found(run, SHOWN)
    colors = palette(list(Shapes.classes.values()))
    sheet = stack(
        [
            _titles(["photograph", "outline drawn by hand, no network", "after the CRF"]),
            *(_row(pictures) for pictures in _refined_photographs()),
            _titles(["image of Shapes", "truth", "network of the first command", "after the CRF"]),
            _row([image, *(colors[mask] for mask in masks)]),
        ],
        GAP,
    )
    sheet.save(HERE / "first.jpg", quality=80, optimize=True)


def crf(run: Path) -> None:
    """Draw crf.png: four images of Shapes, before and after the CRF."""
    titles = ("image", "truth", "network", "after the CRF")
    found = [_found(run, i) for i in range(4)]
    sheet = comparison(found, Shapes.classes, titles, width=200, columns=1)
    sheet.save(HERE / "crf.png", optimize=True)


def trimap(run: Path) -> None:
    """Draw trimap.png: mIoU near the borders of classes, before and after the CRF."""
    with tempfile.TemporaryDirectory() as folder:
        scored = _validated(run, folder)
        plot_trimap.main([str(scored), f"--out={HERE / 'trimap.png'}", '--labels=["Shapes"]'])


def report_run(run: Path) -> None:
    """Take report_run.png with Chromium: the top of the page that validate leaves."""
    with tempfile.TemporaryDirectory() as folder:
        page, shot = _validated(run, folder) / "report.html", Path(folder) / "shot.png"
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        options.append("--force-device-scale-factor=2")
        size = f"--window-size={PAGE[0]},{PAGE[1]}"
        subprocess.run(
            ["chromium", *options, size, f"--screenshot={shot}", page.as_uri()],
            check=True,
            stderr=subprocess.DEVNULL,  # what it says of the desktop that is not there
        )
        with Image.open(shot) as picture:
            few = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
            few.save(HERE / "report_run.png", optimize=True)


def receptive_fields(run: Path) -> None:
    """Draw receptive_fields.png: which pixels decide about the middle one, through each rate."""
    net = load(run / "checkpoints/best.ckpt")
    validation = Shapes().split("val")
    images = np.stack([validation.read(i)[0] for i in range(16)])
    fields = effective_fields(net, torch.from_numpy(images).permute(0, 3, 1, 2))
    middle = middle_pixel(net, *images.shape[1:3])
    named = {}
    for branch, field in enumerate(fields):
        side = side_of(field, middle)
        named[f"rate {rate_of(net, branch)}\n90 % in {side}×{side} pixels"] = field
    fields_plot(named).savefig(HERE / "receptive_fields.png", dpi=120)


def _validated(run: Path, folder: str) -> Path:
    """Score a run's best checkpoint with CRF and trimap; return the folder of the results."""
    scored = validate.main(
        [
            f"--ckpt_path={run / 'checkpoints/best.ckpt'}",
            "--eval.trimap=classes",
            "--crf",
            "--trainer.logger=false",
            f"--runs_dir={folder}",
        ]
    )
    return scored.folder


def _found(run: Path, index: int) -> list[np.ndarray]:
    """Return an image of Shapes' val split, its truth, and its labels before and after the CRF."""
    net = load(run / "checkpoints/best.ckpt")
    image, truth = Shapes().split("val").read(index)
    return [image, truth, Segmenter(net)(image), Segmenter(net, crf=DenseCRF())(image)]


def rough_mask(polygons: dict[str, list], size: tuple[int, int]) -> np.ndarray:
    """Return the mask that outlines make, (H,W) uint8 indices of COLORS.

    Args:
        polygons: class → corners (x,y); later ones lie in front.
        size: W and H.
    """
    drawing = Image.new("L", size)
    pen = ImageDraw.Draw(drawing)
    for name, corners in polygons.items():
        pen.polygon([tuple(corner) for corner in corners], fill=list(COLORS).index(name))
    return np.array(drawing)


def _refined_photographs() -> list[list[np.ndarray]]:
    """Return each photograph, with its outlines over it, and with what `refine` made of these."""
    import skimage.data

    colors = list(COLORS.values())
    with tempfile.TemporaryDirectory() as name:
        photos, rough, refined = (Path(name) / part for part in ("photos", "rough", "refined"))
        for folder in (photos, rough):
            folder.mkdir()
        for photo, polygons in OUTLINES.items():
            drawing = Image.fromarray(getattr(skimage.data, photo)())
            drawing.save(photos / f"{photo}.png")
            Image.fromarray(rough_mask(polygons, drawing.size)).save(rough / f"{photo}.png")
        refine.main([f"--images={photos}", f"--maps={rough}", f"--out={refined}"])
        rows = []
        for photo in OUTLINES:
            pixels = read_image(photos / f"{photo}.png")
            masks = [read_mask(folder / f"{photo}.png") for folder in (rough, refined / "masks")]
            rows.append([pixels, *(overlay(pixels, mask, colors, 0.6) for mask in masks)])
        return rows


def _row(pictures: Sequence[np.ndarray]) -> Image.Image:
    """Return pictures (H,W,3) uint8 of one size side by side, WIDTH pixels wide."""
    wide = (WIDTH - GAP * (len(pictures) - 1)) // len(pictures)
    high = round(wide * pictures[0].shape[0] / pictures[0].shape[1])
    row = Image.new("RGB", (WIDTH, high), "white")
    for i, pixels in enumerate(pictures):
        row.paste(Image.fromarray(pixels).resize((wide, high)), (i * (wide + GAP), 0))
    return row


def _titles(words: Sequence[str]) -> Image.Image:
    """Return a line with a title over each picture of a row."""
    line = Image.new("RGB", (WIDTH, 40), "white")
    pen = ImageDraw.Draw(line)
    for i, title in enumerate(words):
        pen.text((i * WIDTH // len(words) + 4, 6), title, "black", ImageFont.load_default(28))
    return line


DRAWN = {f.__name__: f for f in (first, crf, trimap, receptive_fields, report_run)}


def newest() -> Path | None:
    """Return the newest training in runs/shapes, where validations lie too; None: there is none."""
    found = Path("runs/shapes").glob("*/checkpoints/best.ckpt")
    best = max(found, key=lambda path: path.stat().st_mtime, default=None)
    return best and best.parents[1]


def main() -> None:
    """Draw the pictures that the command line names."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(DRAWN))
    parser.add_argument("--run", type=Path, help="Folder of a run of the first command.")
    options = parser.parse_args()
    unknown = set(options.names) - DRAWN.keys()
    if unknown:
        parser.error(f"no picture is called {', '.join(sorted(unknown))}: {', '.join(DRAWN)}")
    run = options.run or newest()
    if run is None:
        parser.error("runs/shapes has no training: type python -m deeplab_lit.fit, or give --run")
    for name in options.names or DRAWN:
        DRAWN[name](run)
        print(f"drawn: {name}")


if __name__ == "__main__":
    main()
