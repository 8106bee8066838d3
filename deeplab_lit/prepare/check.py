"""The complete check of a data set: every file of the splits that a configuration names."""

import sys
from collections.abc import Callable
from pathlib import Path

from deeplab_lit.atomic import atomic_write
from deeplab_lit.data import SegmentationData
from deeplab_lit.data.check import Summary, summarize, table
from deeplab_lit.data.image import DataError, MissingFiles
from deeplab_lit.data.split import Split
from deeplab_lit.prepare.class_plot import class_plot
from deeplab_lit.text import plural


def check(data: SegmentationData, plot: str | None, num_workers: int) -> int:
    """Read everything; print what is there and what is wrong, and draw it.

    Args:
        data: the data set with its splits.
        plot: picture file to write. None: named after the data set, in the folder data_check.
        num_workers: threads that read.

    Returns:
        The exit code: 0, or 1 where something is wrong.
    """
    name = type(data).__name__
    validation = f"{name} {data.val_split}"
    training = f"{name} {data.train_split}"
    if data.mask_dir:
        training += f", masks of {data.mask_dir}"
    splits: dict[str, Callable[[], Split]] = {
        validation: lambda: data.split(data.val_split),
        training: data.training,
    }
    problems: list[str] = []
    read: dict[str, Summary] = {}
    for title in sorted(splits, key=lambda title: title == validation):
        try:
            split = splits[title]()
        except MissingFiles as error:
            problems += [f"{file} is missing" for file in error.files]
            problems[-1] += f". {error.hint}" if error.hint else ""
            continue
        except DataError as error:
            problems.append(str(error))
            continue
        summary = summarize(split, title, len(data.classes), num_workers)
        problems += summary.problems
        read[title] = summary
    summaries = list(read.values())
    findings = data.findings(read.get(training), read.get(validation))
    problems += [finding.sentence for finding in findings if finding.proved]
    suspicions = [finding.sentence for finding in findings if not finding.proved]
    if summaries:
        print(table(summaries, list(data.classes)))
        own = data.label("").rstrip(":").replace("/", "-")  # Folder-mine
        plot = plot or f"data_check/{own}.png"
        with atomic_write(Path(plot).expanduser()) as temporary:
            class_plot(summaries, data.classes).save(temporary, format="PNG")
        print(f"class frequencies drawn in {plot}")
    if len(summaries) == 2 and data.trained_on():
        both = data.trained_on()
        suspicions.insert(
            0, f"{plural(both, 'image')} {'is' if both == 1 else 'are'} in both splits"
        )
    for suspicion in suspicions:
        print(f"WARNING: {suspicion}")
    for problem in problems:
        print(problem, file=sys.stderr)
    if problems:
        print(f"error: {plural(len(problems), 'problem')}")
    elif suspicions:
        said = plural(len(suspicions), "warning")
        print(f"{name}: nothing is wrong with the files; see the {said} above")
    else:
        print(f"{name}: nothing is wrong")
    return 1 if problems else 0
