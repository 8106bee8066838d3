"""python -m deeplab_lit.predict: segment images; see --help.

Any image, folder or glob in; for each image a palette PNG of class indices in masks/ and a blended
picture in overlays/ out, at the image's own size (turned upright where EXIF says so). Of a video or
webcam a blended one in videos/, with --video_masks its masks too. With --submission, what the test
servers of PASCAL VOC and Cityscapes take instead of masks/. With --pseudo_labels, the masks are
void where the network is not sure, to be trained on: by fit's --data.mask_dir or
--unlabeled_data.mask_dir. With --image_labels, an image has no classes but those listed for it.
"""

import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jsonargparse import Namespace

import deeplab_lit
from deeplab_lit.cli.options import crf_spelled_out, with_crf_files
from deeplab_lit.cli.parser import Parser, UsageError, configs_first, parse, words_of
from deeplab_lit.crf import DenseCRF
from deeplab_lit.crf.parameters import in_words
from deeplab_lit.data import CLASSES_OF
from deeplab_lit.errors import lasting_screen, plain_errors, refused_arguments
from deeplab_lit.network.half_precision import why_slow
from deeplab_lit.network.inference import Inference, device_of
from deeplab_lit.network.weights.read import sha256_of
from deeplab_lit.pictures.masks import palette_image
from deeplab_lit.runs.folder import named_checkpoint, open_results_folder
from deeplab_lit.segment import predict_options
from deeplab_lit.segment.confidence import Rule, rule_of
from deeplab_lit.segment.find_images import find_images, listed
from deeplab_lit.segment.image_labels import agreement, read_image_labels
from deeplab_lit.segment.images import Job, Results, is_done, segment_images
from deeplab_lit.segment.mask_values import about_values, label_values
from deeplab_lit.segment.pseudo_labels import SUMMARY, digest_of, write_pseudo_labels
from deeplab_lit.segment.segmenter import Segmenter
from deeplab_lit.segment.submission import Submission
from deeplab_lit.segment.video import check_sources, is_video, segment_videos
from deeplab_lit.terminal import command
from deeplab_lit.text import plural, say

FEW = 3  # files and folders that can be typed again; more come from a shell's glob


def build_parser() -> Parser:
    """Return the parser of the command."""
    return predict_options.build_parser((__doc__ or "").partition("\n\n")[2])


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
        typed = list(sys.argv[1:] if args is None else args)
        argv = configs_first(crf_spelled_out(typed))
        options = parse(parser, argv, with_crf_files(argv))
        inference = _inference(options.eval)
        with refused_arguments():
            crf = parser.instantiate(options).crf
        planned = plan(options, inference, crf)
        open_results_folder(planned.out, planned.settings)
        problems = run(planned)
        is_plain = not planned.submission and not planned.rule and crf is None
        if not problems and is_plain and len(options.images) <= FEW:
            same = words_of(typed, ["--out"], others=True)
            other = ["--crf", "--out", f"{planned.out}_crf"]
            say(f"Next        {command('deeplab_lit.predict', *same, *other)}")
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
        UserError: options do not go together; images, weights or a list are at fault.
    """
    from deeplab_lit.cli.other_views import tell_other_views  # load torchvision: not for --help
    from deeplab_lit.network.weights.start import check_order

    out = Path(options.out).expanduser()
    films = [source for source in options.images if is_video(source)]
    predict_options.check_options(options, films)
    asked = 0.9 if options.min_confidence is None else options.min_confidence
    rule = rule_of(asked) if options.pseudo_labels else None
    check_sources(films)
    pictures = [source for source in options.images if source not in films]
    images = find_images(pictures, leave_out=out)
    if not options.submission:
        images = listed(images, options.ids, options.all_but)
    path = named_checkpoint(options.ckpt_path)
    net = deeplab_lit.load(path)
    tell_other_views(path, vars(inference))
    submission = None
    if options.submission:
        submission = Submission(options.submission, out, list(images.values()), options.ids)
        submission.check_classes(net.num_classes)
        check_order(list(net.classes), list(CLASSES_OF[options.submission]), path, "the server's")
        wanted = set(submission.images)
        images = {name: image for name, image in images.items() if image in wanted}
    labels_file = Path(options.image_labels).expanduser() if options.image_labels else None
    present: dict[Path, tuple[int, ...]] = {}
    if labels_file:
        labels = read_image_labels(labels_file, images, list(net.classes))
        present = labels.present
        say(*labels.about)
    jobs = [
        Job(
            image,
            submission.path(image) if submission else out / "masks" / f"{name}.png",
            out / "overlays" / f"{name}.jpg",
            out / "probabilities" / f"{name}.npz" if options.probabilities else None,
            present.get(name),
        )
        for name, image in images.items()
    ]
    values = None
    if options.mask_values == "labels":
        values = label_values(net, path, with_void=rule is not None)
    device = device_of(options.device)
    settings = {
        "checkpoint_sha256": sha256_of(path),
        **inference.settings(net),
        "opacity": options.opacity,
        "legend": options.legend,
    }
    if submission:
        settings["submission"] = options.submission
    if labels_file:
        settings["image_labels_sha256"] = sha256_of(labels_file)
    if rule:
        settings["min_confidence"] = f"{rule.kind} {rule.value:g}"
        if rule.needs_all:
            settings["images_sha256"] = digest_of(jobs, out)
    if values:
        settings["mask_values"] = values
    if crf is not None:
        settings["crf"] = crf.settings(device)
    precision = getattr(torch, options.precision)
    if precision != torch.float32:
        settings["precision"] = options.precision
        net.use_channels_last()
        if (slow := why_slow(precision, device, "--precision float32", trains=False)) is not None:
            say(f"WARNING: {slow}")
    segmenter = Segmenter(net.to(device), inference, crf, precision)
    return Plan(out, settings, segmenter, films, jobs, submission, values, rule, options)


def _inference(options: Namespace) -> Inference:
    """Return the section `eval` as the class that it names."""
    try:
        return Inference(**vars(options))
    except ValueError as error:
        raise UsageError(f"--eval.{error}") from error


def run(plan: Plan) -> list[str]:
    """Segment videos, then images, then check and pack a submission.

    Returns:
        A sentence for each image or video that could not be read.
    """
    if "crf" in plan.settings:
        say(f"CRF         {in_words(plan.settings['crf'])}")
    problems = segment_videos(
        *(plan.films, plan.out / "videos", plan.segmenter, plan.options.opacity),
        masks=plan.options.video_masks, values=plan.values,
    )  # fmt: skip
    problems += _segment_images(plan)
    submission = plan.submission
    if not submission and not plan.rule and (plan.jobs or plan.options.video_masks):
        for sentence in about_values(plan.segmenter.net, plan.values):
            say(sentence)
    if submission and not problems:
        submission.check()
        say(f"Checked     {plural(len(plan.jobs), 'label map')}")
        say(f"To upload   {submission.pack()}")
    return problems


def _segment_images(plan: Plan) -> list[str]:
    """Write masks and overlays of the images that have none; return what could not be read."""
    jobs, submission = plan.jobs, plan.submission
    todo = [job for job in jobs if not is_done(job)]
    if len(todo) < len(jobs):
        done = len(jobs) - len(todo)
        say(f"{done} of {plural(len(jobs), 'image')} {'is' if done == 1 else 'are'} done already")
    if not jobs:
        return []
    if plan.options.image_labels and todo:
        say(agreement(plan.segmenter, todo))
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
            "image_labels": plan.options.image_labels,
            "probabilities": plan.options.probabilities,
            **plan.settings,
        }
        unread = write_pseudo_labels(
            *(plan.segmenter, jobs, todo, results, plan.rule),
            out=plan.out, about=about, num_workers=workers,
        )  # fmt: skip
    else:
        unread = segment_images(plan.segmenter, todo, results, num_workers=workers)
    masks = jobs[0].mask.parent if submission else plan.out / "masks"
    say(f"Masks       {masks}, {len(todo) - len(unread):,} written")
    if plan.options.probabilities:
        say(f"Kept        {plan.out / 'probabilities'}")
    say(f"Overlays    {plan.out / 'overlays'}")
    if plan.rule:
        also = (" --unlabeled_data.mask_values labels", " --data.mask_values labels")
        beside, alone = also if plan.values else ("", "")
        say(
            f"Made how    {plan.out / SUMMARY}",
            f"To train    fit … --unlabeled_data.mask_dir {masks}{beside} (beside labels)",
            f"            fit … --data.mask_dir {masks}{alone} (alone)",
        )
    return unread


if __name__ == "__main__":
    sys.exit(main())
