"""python -m deeplab_lit.predict: segment images; see --help.

Any image, folder or glob in; for each image a palette PNG of class indices in masks/ and a blended
picture in overlays/ out, at the image's own size (turned upright where EXIF says so). Of a video or
webcam a blended one in videos/, with --video_masks its masks too. With --submission, what the test
servers of PASCAL VOC and Cityscapes take instead of masks/. With --pseudo_labels, the masks are
void where the network is not sure, to be trained on: by fit's --data.mask_dir or
--unlabeled_data.mask_dir.
"""

import os
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

from jsonargparse import Namespace
from jsonargparse.typing import NonNegativeInt

import deeplab_lit
from deeplab_lit.cli.options import add_crf, crf_spelled_out, with_crf_files
from deeplab_lit.cli.parser import Parser, UsageError, configs_first, parse
from deeplab_lit.crf import DenseCRF
from deeplab_lit.crf.parameters import in_words
from deeplab_lit.data import CLASSES_OF
from deeplab_lit.data.image import DataError
from deeplab_lit.errors import lasting_screen, plain_errors, refused_arguments
from deeplab_lit.network.inference import DEVICE_HELP, Inference, device_of
from deeplab_lit.network.weights.read import sha256_of
from deeplab_lit.pictures.masks import palette_image
from deeplab_lit.runs.folder import CHECKPOINT_HELP, named_checkpoint, open_results_folder
from deeplab_lit.segment.confidence import Rule, rule_of
from deeplab_lit.segment.images import (
    Job,
    Results,
    about_values,
    find_images,
    is_done,
    label_values,
    segment_images,
)
from deeplab_lit.segment.pseudo_labels import SUMMARY, digest_of, write_pseudo_labels
from deeplab_lit.segment.segmenter import Segmenter
from deeplab_lit.segment.submission import Server, Submission
from deeplab_lit.segment.video import WEBCAM, check_sources, cut_short, is_video, segment_video
from deeplab_lit.text import plural

Values = Literal["indices", "labels"]
USAGE = "python -m deeplab_lit.predict --ckpt_path FILE --images FILE… --out DIR [options]"
DESCRIPTION = (__doc__ or "").partition("\n\n")[2]
TOPICS = {
    "Input and output": ["ckpt_path", "images", "out", "config"],
    "Evaluation": ["eval"],
    "CRF": ["crf"],
    "Masks and overlays": ["mask_values", "opacity", "legend", "video_masks"],
    "Test servers": ["submission", "ids"],
    "Pseudo-labels": ["pseudo_labels", "min_confidence"],
    "Machine": ["device", "num_workers"],
}


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = Parser(
        prog="python -m deeplab_lit.predict", usage=USAGE, description=DESCRIPTION, topics=TOPICS
    )
    add = parser.add_argument
    add("--config", action="config", help="Read options from a YAML file.")
    add("--ckpt_path", type=str, required=True, help=CHECKPOINT_HELP)
    add("--images", type=str, nargs="+", required=True,
        help="Files, folders (searched through) and globs; also videos, and webcam:0.",
    )  # fmt: skip
    add("--out", type=str, required=True, help="Folder for the results.")
    add("--eval", type=Inference, default=Inference())
    add_crf(parser)
    add("--submission", type=Server | None, default=None,
        help="Write label maps as a test server takes them, check and archive them.",
    )  # fmt: skip
    add("--ids", type=str | None, default=None,
        help="Of --submission: the split's official list; other images are left out.",
    )  # fmt: skip
    add("--pseudo_labels", action="store_true",
        help="Write masks to train on: void where the network is not sure.")  # fmt: skip
    add("--min_confidence", type=float | str | None, default=None,
        help="Of --pseudo_labels: a probability (default: 0.9); or by class, bdl or cbst:0.2.",
    )  # fmt: skip
    add("--mask_values", type=Values, default="indices",
        help="What masks hold: class indices, or the values of the label files trained on.",
    )  # fmt: skip
    add("--opacity", type=float, default=0.5, help="Of the overlays' colors.")
    add("--legend", type=bool, default=True,
        help="Of images: a strip below each overlay names the classes in it; false: none.",
    )  # fmt: skip
    add("--video_masks", type=bool, default=False,
        help="Of videos and webcams: a palette PNG of class indices for each frame too.",
    )  # fmt: skip
    add("--device", type=str, default="auto", help=DEVICE_HELP)
    add("--num_workers", type=NonNegativeInt, default=min(os.cpu_count() or 1, 8),
        help="Processes that read images ahead.")  # fmt: skip
    return parser


class Plan(NamedTuple):
    """A plan of what the command is about to do.

    Attributes:
        out: folder of all results.
        settings: on which the results depend.
        segmenter: network and CRF.
        films: videos and webcams.
        jobs: images, and where the results of each go.
        submission: layout of a test server; None: masks as palette PNGs.
        values: what masks hold for each class index; None: the indices.
        rule: which pixels become pseudo-labels; None: masks hold all.
        options: of the command line.
    """

    out: Path
    settings: dict[str, Any]
    segmenter: Segmenter
    films: list[str]
    jobs: list[Job]
    submission: Submission | None
    values: list[int] | None
    rule: Rule | None
    options: Namespace


def main(args: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        args: command line; None: this process's.

    Returns:
        The exit code: 0, or 1 where images could not be read.

    Raises:
        SystemExit: code 2 after a sentence on stderr where the input is at fault.
    """
    with plain_errors(), lasting_screen():
        parser = build_parser()
        argv = configs_first(crf_spelled_out(sys.argv[1:] if args is None else args))
        options = parse(parser, argv, with_crf_files(argv))
        inference = _inference(options.eval)
        with refused_arguments():
            crf = parser.instantiate(options).crf
        planned = plan(options, inference, crf)
        open_results_folder(planned.out, planned.settings)
        problems = run(planned)
    if problems:
        number = len(problems)
        what = f"{number} of the images and videos" if planned.films else plural(number, "image")
        print(f"error: {what} could not be read (see above)", file=sys.stderr)
    return 1 if problems else 0


def plan(options: Namespace, inference: Inference, crf: DenseCRF | None) -> Plan:
    """Return what the options ask for; nothing is written.

    Args:
        options: of the command line.
        inference: section `eval`.
        crf: section `crf`; None: no CRF.

    Raises:
        UserError: options do not go together; images, weights or the list of a split are at fault.
    """
    out = Path(options.out).expanduser()
    films = [source for source in options.images if is_video(source)]
    _check_options(options, films)
    asked = 0.9 if options.min_confidence is None else options.min_confidence
    rule = rule_of(asked) if options.pseudo_labels else None
    check_sources(films)
    pictures = [source for source in options.images if source not in films]
    images = find_images(pictures, leave_out=out)
    path = named_checkpoint(options.ckpt_path)
    net = deeplab_lit.load(path)
    submission = None
    if options.submission:
        from deeplab_lit.network.weights.start import check_order  # torchvision: not for --help

        submission = Submission(options.submission, out, list(images.values()), options.ids)
        submission.check_classes(net.num_classes)
        check_order(list(net.classes), list(CLASSES_OF[options.submission]), path, "the server's")
        wanted = set(submission.images)
        images = {name: image for name, image in images.items() if image in wanted}
    jobs = [
        Job(
            image,
            submission.path(image) if submission else out / "masks" / f"{name}.png",
            out / "overlays" / f"{name}.jpg",
        )
        for name, image in images.items()
    ]
    values = label_values(net, path) if options.mask_values == "labels" else None
    device = device_of(options.device)
    settings = {
        "checkpoint_sha256": sha256_of(path),
        **inference.settings(net),
        "opacity": options.opacity,
        "legend": options.legend,
    }
    if submission:
        settings["submission"] = options.submission
    if rule:
        settings["min_confidence"] = f"{rule.kind} {rule.value:g}"
        if rule.needs_all:
            settings["images_sha256"] = digest_of(jobs, out)
    if values:
        settings["mask_values"] = values
    if crf is not None:
        settings["crf"] = crf.settings(device)
    segmenter = Segmenter(net.to(device), inference, crf)
    return Plan(out, settings, segmenter, films, jobs, submission, values, rule, options)


def _inference(options: Namespace) -> Inference:
    """Return the section `eval` as the class that it names."""
    try:
        return Inference(**vars(options))
    except ValueError as error:
        raise UsageError(f"--eval.{error}") from error


def _check_options(options: Namespace, films: Sequence[str]) -> None:
    """Refuse options that do not go together.

    Raises:
        UsageError: says which.
    """
    if not 0 <= options.opacity <= 1:
        raise UsageError(f"--opacity must be in 0…1, got {options.opacity}")
    if options.ids and not options.submission:
        raise UsageError("--ids is the list of a --submission, which is not given")
    if options.submission and films:
        raise UsageError(f"--submission takes images, and {films[0]} is a video")
    if options.submission and options.mask_values == "labels":
        raise UsageError("--submission has values of its own: leave out --mask_values")
    if options.min_confidence is not None and not options.pseudo_labels:
        raise UsageError("--min_confidence is of --pseudo_labels, which is not given")
    if options.pseudo_labels and (options.submission or options.mask_values == "labels" or films):
        raise UsageError(
            "--pseudo_labels writes masks of class indices for images, as mask_dir takes them: "
            "leave out --submission, --mask_values labels and videos"
        )


def run(plan: Plan) -> list[str]:
    """Segment videos, then images, then check and pack a submission.

    Returns:
        A sentence for each image or video that could not be read.
    """
    if "crf" in plan.settings:
        print(f"CRF: {in_words(plan.settings['crf'])}", flush=True)
    problems = _segment_videos(plan)
    problems += _segment_images(plan)
    submission = plan.submission
    if not submission and not plan.rule and (plan.jobs or plan.options.video_masks):
        for sentence in about_values(plan.segmenter.net, plan.values):
            print(sentence)
    if submission and not problems:
        submission.check()
        print(f"Checked: {plural(len(plan.jobs), 'label map')}. To upload: {submission.pack()}")
    return problems


def _segment_images(plan: Plan) -> list[str]:
    """Write masks and overlays of the images that have none; return what could not be read."""
    jobs, submission = plan.jobs, plan.submission
    todo = [job for job in jobs if not is_done(job)]
    if len(todo) < len(jobs):
        done = len(jobs) - len(todo)
        print(f"{done} of {plural(len(jobs), 'image')} {'is' if done == 1 else 'are'} done already")
    if not jobs:
        return []
    palette = partial(palette_image, colors=plan.segmenter.colors, values=plan.values)
    results = Results(
        submission.picture if submission else palette,
        plan.segmenter.colors,
        plan.options.opacity,
        plan.segmenter.net.classes if plan.options.legend else None,
    )
    workers = plan.options.num_workers
    if plan.rule:
        about = {
            "deeplab_lit": deeplab_lit.__version__,
            "checkpoint": plan.options.ckpt_path,
            "images_of": list(map(str, plan.options.images)),
            **plan.settings,
        }
        unread = write_pseudo_labels(
            *(plan.segmenter, jobs, todo, results, plan.rule),
            out=plan.out, about=about, num_workers=workers,
        )  # fmt: skip
    else:
        unread = segment_images(plan.segmenter, todo, results, num_workers=workers)
    masks = jobs[0].mask.parent if submission else plan.out / "masks"
    written = plural(len(todo) - len(unread), "mask")
    print(f"{written} in {masks}, overlays in {plan.out / 'overlays'}")
    if plan.rule:
        print(
            f"How they were made is in {plan.out / SUMMARY}. To train on them: --unlabeled_data."
            f"mask_dir {masks} (beside labels, as methods do) or --data.mask_dir {masks} (alone)"
        )
    return unread


def _segment_videos(plan: Plan) -> list[str]:
    """Write the videos; return a sentence for each that could not be read to its end."""
    problems = []
    out = plan.out / "videos"
    for film in plan.films:
        try:
            path = segment_video(
                film,
                out,
                plan.segmenter,
                plan.options.opacity,
                masks=plan.options.video_masks,
                values=plan.values,
            )
            cut = None if film.startswith(WEBCAM) else cut_short(film, out)
        except DataError as error:
            problems.append(str(error))
            print(error, file=sys.stderr)
        else:
            print(f"Video {path}" if path else f"{film} is done already", flush=True)
            if cut:
                problems.append(cut)
                print(cut, file=sys.stderr)
    return problems


if __name__ == "__main__":
    sys.exit(main())
