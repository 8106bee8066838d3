"""python -m deeplab_lit.predict: segment images; see --help.

Any image, folder or glob in; for each image a palette PNG of class indices in masks/ and a blended
picture in overlays/ out, at the image's own size (turned upright where EXIF says so).
"""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jsonargparse import ArgumentParser
from jsonargparse.typing import PositiveFloat
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

import deeplab_lit
from deeplab_lit.crf import DenseCRF
from deeplab_lit.crf.options import CRFOptions, described, in_words, with_crf_enabled
from deeplab_lit.data.find import find_images
from deeplab_lit.data.image import DataError, read_image
from deeplab_lit.errors import plain_errors
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.files import sha256_of
from deeplab_lit.training.picture import overlay, palette_image
from deeplab_lit.training.run_folder import claim_results


class Job(NamedTuple):
    """One image, and where its results go."""

    image: Path
    mask: Path
    overlay: Path


class _Images(Dataset):
    """Images as arrays; a broken one as its error, so that the others go on."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.jobs = jobs

    def __len__(self) -> int:
        return len(self.jobs)

    def __getitem__(self, index: int) -> tuple[int, np.ndarray | str]:
        try:
            return index, read_image(self.jobs[index].image)
        except DataError as error:
            return index, str(error)


@torch.inference_mode()
def predict(
    net: DeepLabV2,
    jobs: Sequence[Job],
    *,
    scales: Sequence[float] | None = None,
    crf: DenseCRF | None = None,
    opacity: float = 0.5,
    num_workers: int = 2,
) -> list[str]:
    """Write mask and overlay of every image, the mask last: where it is, the image is done.

    Args:
        net: as `deeplab_lit.load` gives it, on the device to use.
        jobs: what to do.
        scales: instead of the network's own.
        crf: refines what the network says.
        opacity: of the colours over the image, 0…1.
        num_workers: processes that read images ahead.

    Returns:
        What went wrong, one sentence an image that could not be read.
    """
    device = net.preprocess.mean.device
    colours = list(net.classes.values())
    problems = []
    images = DataLoader(_Images(jobs), batch_size=None, num_workers=min(num_workers, len(jobs)))
    for index, image in tqdm(images, "predicting", unit=" images", dynamic_ncols=True):
        job = jobs[index]
        if isinstance(image, str):
            problems.append(image)
            tqdm.write(image, file=sys.stderr)
            continue
        pixels = image.to(device).permute(2, 0, 1)[None]
        scores = net(pixels, scales)[0]
        if crf is not None:
            scores = crf(image, scores.softmax(dim=0))
        mask = scores.argmax(dim=0).to("cpu", torch.uint8).numpy()
        blended = Image.fromarray(overlay(image.numpy(), mask, colours, opacity))
        _save(blended, job.overlay, quality=92)
        _save(palette_image(mask, colours), job.mask)
    return problems


def _save(picture: Image.Image, path: Path, **options: int) -> None:
    """Write whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    try:
        picture.save(temporary, format="PNG" if path.suffix == ".png" else "JPEG", **options)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def build_parser() -> ArgumentParser:
    """The options."""
    parser = ArgumentParser(prog="python -m deeplab_lit.predict", description=__doc__)
    parser.add_argument("--config", action="config", help="Read options from a YAML file.")
    parser.add_argument("--ckpt_path", type=str, required=True, help="Checkpoint that fit wrote.")
    parser.add_argument(
        "--images",
        type=str,
        nargs="+",
        required=True,
        help="Files, folders (searched through) and globs.",
    )
    parser.add_argument("--out", type=str, required=True, help="Folder for the results.")
    parser.add_argument(
        "--eval.scales",
        type=tuple[PositiveFloat, ...] | None,
        default=None,
        help="Sizes at which images go through the network. null: those of its training.",
    )
    parser.add_argument("--crf", type=CRFOptions, default=CRFOptions())
    parser.add_argument("--opacity", type=float, default=0.5, help="Of the overlays' colours.")
    parser.add_argument(
        "--device", type=str, default="auto", help='"auto", "cpu", "cuda", "cuda:1", "mps".'
    )
    parser.add_argument(
        "--num_workers",
        type=int,
        default=min(os.cpu_count() or 1, 8),
        help="Processes that read images ahead.",
    )
    return parser


def main(args: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code: 0, or 1 where images could not be read."""
    with plain_errors():
        argv = with_crf_enabled(list(sys.argv[1:] if args is None else args))
        options = build_parser().parse_args(argv)
        scales = options.eval.scales
        crf = CRFOptions(**vars(options.crf)).build() if options.crf.enabled else None
        if not 0 <= options.opacity <= 1:
            raise DataError(f"--opacity must be in 0…1, got {options.opacity}")
        out = Path(options.out)
        jobs = [
            Job(image, out / "masks" / f"{name}.png", out / "overlays" / f"{name}.jpg")
            for name, image in find_images(options.images, leave_out=out).items()
        ]
        net = deeplab_lit.load(options.ckpt_path)
        scales = scales or net.scales
        device = _device(options.device)
        settings = {
            "checkpoint_sha256": sha256_of(options.ckpt_path),
            "scales": list(scales),
            "opacity": options.opacity,
        }
        if crf is not None:
            settings["crf"] = described(crf, device.type)
        claim_results(out, settings)
        if crf is not None:
            print(f"CRF: {in_words(settings['crf'])}", flush=True)
        todo = [job for job in jobs if not job.mask.exists()]
        if len(todo) < len(jobs):
            print(f"{len(jobs) - len(todo)} of {len(jobs)} images are done already")
        net.to(device)
        problems = predict(
            net,
            todo,
            scales=scales,
            crf=crf,
            opacity=options.opacity,
            num_workers=options.num_workers,
        )
    print(f"{len(todo) - len(problems)} masks in {out / 'masks'}, overlays in {out / 'overlays'}")
    if problems:
        print(f"error: {len(problems)} images could not be read (see above)", file=sys.stderr)
    return 1 if problems else 0


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    try:
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise DataError(f"--device {name}: {str(error).splitlines()[0]}") from error


if __name__ == "__main__":
    sys.exit(main())
