"""python -m deeplab_lit.refine: refine masks or class maps with the CRF; see --help.

The dense CRF alone, on a folder of what anything has made, beside the images: label maps (PNG or
.npy), probabilities (.npy of (C,H,W), .npz of predict --probabilities), or the dictionaries of
class activation maps that IRN and CLIP-ES write, for which --rule says where background is. Files
are called as the images. Out come masks of class indices, in masks/, and with --probabilities the
refined probabilities. No network is needed. Started again, it goes on where it was stopped.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

import deeplab_lit.data as data_sets
from deeplab_lit.cli.options import (
    GT_PROB,
    GT_PROB_HELP,
    add_crf,
    crf_spelled_out,
    with_crf_files,
)
from deeplab_lit.cli.parser import Parser, UsageError, configs_first, parse
from deeplab_lit.crf import DenseCRF
from deeplab_lit.crf.parameters import in_words
from deeplab_lit.crf.pool import cores
from deeplab_lit.data.image import DataError
from deeplab_lit.data.map_rule import MapRule
from deeplab_lit.errors import lasting_screen, plain_errors, refused_arguments
from deeplab_lit.runs.folder import open_results_folder
from deeplab_lit.segment.find_images import find_images
from deeplab_lit.segment.refined_maps import MapJob, MapRefinement, map_jobs, refine_maps
from deeplab_lit.terminal import command, from_here
from deeplab_lit.text import plural, say
from deeplab_lit.types import Classes

USAGE = "python -m deeplab_lit.refine --images DIR… --maps DIR --out DIR [options]"
LOOKED_AT = 8  # files that are read before anything is written


def build_parser() -> Parser:
    """Return the parser of the command."""
    description = (__doc__ or "").partition("\n\n")[2]
    parser = Parser(
        prog="python -m deeplab_lit.refine",
        usage=USAGE,
        description=description,
        examples=[
            "python -m deeplab_lit.refine --images photos --maps masks --out refined",
            "python -m deeplab_lit.refine --images photos --maps cams --rule power:2 --out out",
        ],
    )
    add = parser.add_argument
    add("--config", action="config", help="Read options from a YAML file.")
    add("--images", type=str, nargs="+", required=True,
        help="Folders (searched through), files and globs; there may be more images than maps.",
    )  # fmt: skip
    add("--maps", type=str, required=True, help="Folder of maps, called as the images.")
    add("--out", type=str, required=True, help="Folder for the results.")
    add("--classes", type=str | None, default=None,
        help="Of the masks' colors: VOC, Cityscapes, Coco, or another data set of this package; "
        "or a list as Folder's classes.txt. Default: gray masks.",
    )  # fmt: skip
    add("--rule", type=str | None, default=None,
        help="What background's score is in class maps without it: threshold:0.15, everywhere; or "
        "power:2, (1 − the highest score)².",
    )  # fmt: skip
    add("--gt_prob", type=float, default=GT_PROB, help=GT_PROB_HELP)
    add_crf(parser,
        "Its parameters: a file like configs/crf/vgg16.yaml, or --crf.bi_w 5 (--crf.help). "
        "Default: the released ones of ResNet-101.",
    )  # fmt: skip
    add("--certain", type=float | None, default=None,
        help="Pixels whose class is less probable after the CRF become void; CLIP-ES: 0.95.",
    )  # fmt: skip
    add("--probabilities", action="store_true",
        help="Keep the refined probabilities too: probabilities/<name>.npz.")  # fmt: skip
    add("--num_workers", type=PositiveInt, default=cores(), help="Images refined at a time.")
    return parser


class Plan(NamedTuple):
    """A plan of what the command is about to do.

    Attributes:
        out: folder of all results.
        refinement: how maps become masks.
        jobs: images with their maps, and where the results go.
        unused: images without maps.
    """

    out: Path
    refinement: MapRefinement
    jobs: list[MapJob]
    unused: int


def main(args: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        args: command line; None: this process's.

    Returns:
        The exit code: 0, or 1 where images or maps could not be read.

    Raises:
        SystemExit: code 2 after a sentence on stderr where the input is at fault.
    """
    with plain_errors(), lasting_screen():
        parser = build_parser()
        argv = configs_first(crf_spelled_out(sys.argv[1:] if args is None else args))
        options = parse(parser, argv, with_crf_files(argv))
        with refused_arguments():
            crf = parser.instantiate(options).crf or DenseCRF()
        planned = plan(options, crf)
        open_results_folder(planned.out, _settings(planned.refinement, crf))
        problems = run(planned, crf, options.num_workers)
        if not problems:
            masks = from_here(planned.out / "masks")
            data = f"--data {_data_set(options.classes) or 'VOC'} --data.root DIR"
            say(f"Next        {command('deeplab_lit.validate', '--masks', masks)} {data}")
    if problems:
        images = plural(len(problems), "image")
        print(f"error: {images} or their maps could not be read (see above)", file=sys.stderr)
    return 1 if problems else 0


def plan(options: Namespace, crf: DenseCRF) -> Plan:
    """Return what the options ask for; some files are read, nothing is written.

    Args:
        options: of the command line.
        crf: section `crf`.

    Raises:
        UserError: options do not go together; images or maps are missing or do not fit.
    """
    for name in ("maps", "out"):
        if not options[name].strip():
            raise UsageError(f"--{name} got an empty name: give a folder")
    out, folder = (Path(name).expanduser().absolute() for name in (options.out, options.maps))
    rule = MapRule.parse(options.rule) if options.rule else MapRule()
    if rule.certain is not None:
        raise UsageError(f"--rule {rule} is about maps before the CRF: after it there is --certain")
    if options.certain is not None and not 0 < options.certain < 1:
        raise UsageError(f"--certain must be between 0 and 1, got {options.certain:g}")
    if not 0.5 < options.gt_prob < 1:
        raise UsageError(f"--gt_prob must be between 0.5 and 1, got {options.gt_prob:g}")
    if not folder.is_dir():
        raise UsageError(f"--maps {options.maps}: no such folder")
    classes = _classes(options.classes) if options.classes else None
    images = find_images(options.images, leave_out=out)
    jobs = map_jobs(images, folder, out, probabilities=options.probabilities)
    refinement = MapRefinement(crf, rule, options.gt_prob, options.certain, classes)
    for job in jobs[:: max(len(jobs) // LOOKED_AT, 1)]:
        _, _, number = refinement.read(job)
        if options.probabilities and not number:
            raise UsageError(
                f"--probabilities: {job.maps} does not tell how many classes there are; "
                "--classes does"
            )
    return Plan(out, refinement, jobs, len(images) - len(jobs))


def run(plan: Plan, crf: DenseCRF, workers: int) -> list[str]:
    """Refine what is not refined yet, and say what came out.

    Returns:
        A sentence for each image that could not be refined.
    """
    jobs, out = plan.jobs, plan.out
    todo = [job for job in jobs if not job.is_done()]
    say(f"CRF         {in_words(crf.settings())}")
    if plan.unused:
        say(f"{plural(plan.unused, 'image')} without maps: left out")
    if done := len(jobs) - len(todo):
        say(f"{done} of {plural(len(jobs), 'image')} {'is' if done == 1 else 'are'} done already")
    outcomes, problems = refine_maps(plan.refinement, todo, workers)
    say(f"Masks       {from_here(out / 'masks')}, {len(outcomes):,} written")
    if jobs[0].probabilities:
        say(f"Kept        {from_here(out / 'probabilities')}")
    void = sum(outcome.void for outcome in outcomes)
    if void:
        pixels = sum(outcome.pixels for outcome in outcomes)
        say(f"Void        {void / pixels:.2%} of their pixels")
    return problems


def _settings(refinement: MapRefinement, crf: DenseCRF) -> dict:
    """Return what the results depend on."""
    return {
        "crf": crf.settings(),
        "rule": str(refinement.rule),
        "gt_prob": refinement.gt_prob,
        "certain": refinement.certain,
        "classes": list(refinement.classes or ()),
    }


def _data_set(given: str | None) -> str | None:
    """Return the name of the data set that `--classes` names, if it does."""
    named = {name.lower(): name for name in data_sets.__all__}
    name = named.get((given or "").lower())
    has_classes = name and isinstance(getattr(getattr(data_sets, name), "classes", None), dict)
    return name if has_classes else None


def _classes(given: str) -> Classes:
    """Return the classes that `--classes` names.

    Raises:
        DataError: there is no such data set, and no such list.
    """
    if name := _data_set(given):
        return getattr(data_sets, name).classes
    path = Path(given).expanduser()
    if not path.is_file():
        known = [name for name in data_sets.__all__ if hasattr(getattr(data_sets, name), "classes")]
        raise DataError(f"--classes {given}: not {', '.join(known)}, and no such file")
    return data_sets.listed_classes(path)


if __name__ == "__main__":
    sys.exit(main())
