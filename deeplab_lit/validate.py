"""python -m deeplab_lit.validate: score a checkpoint; see --help."""

import sys
from collections.abc import Sequence
from pathlib import Path

from jsonargparse import Namespace
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from deeplab_lit import __version__
from deeplab_lit.cli.callbacks import build_callbacks
from deeplab_lit.cli.checks import check_trainer
from deeplab_lit.cli.defaults import (
    DATA,
    implied_config,
    names_data,
    with_checkpoint_named,
)
from deeplab_lit.cli.options import MASKS
from deeplab_lit.cli.parser import UsageError, flags, value_of, words_of
from deeplab_lit.cli.processes import SameOnAllProcesses, settle_rank
from deeplab_lit.cli.run import (
    Run,
    build_parser,
    build_trainer,
    command_line,
    experiment_of,
    kept_process,
    listed,
    parse_run,
    set_up_process,
)
from deeplab_lit.cli.run_facts import About
from deeplab_lit.cli.run_report import leave_report
from deeplab_lit.cli.scored_checkpoint import ScoredCheckpoint, checkpoint_to_score, read_to_score
from deeplab_lit.cli.scored_folder import ScoredFolder, folder_to_score
from deeplab_lit.cli.screen import after_validate, quieten, scored
from deeplab_lit.crf import Refiner
from deeplab_lit.data import Cityscapes
from deeplab_lit.errors import lasting_screen, plain_errors, refused_arguments
from deeplab_lit.loading import DataModule
from deeplab_lit.network.weights.load import WeightsError
from deeplab_lit.network.weights.published import NAMED
from deeplab_lit.runs.config import RUN_FOLDER, RunConfig, put_save_dir
from deeplab_lit.runs.conversion import read_trained
from deeplab_lit.runs.folder import create_run_folder, named_checkpoint, new_run_folder
from deeplab_lit.runs.loggers import build_loggers, end_wandb
from deeplab_lit.runs.trained_on import todays_crf
from deeplab_lit.scoring.cityscapes import Instances
from deeplab_lit.terminal import from_here
from deeplab_lit.text import say
from deeplab_lit.yaml_files import read_options

USAGE = """python -m deeplab_lit.validate --ckpt_path FILE [options]
       python -m deeplab_lit.validate --masks DIR --data VOC --data.root DIR [options]"""
DESCRIPTION = (
    "Score a checkpoint, by default on what it was trained with. --ckpt_path last: the best of "
    "the newest run. Or score masks, that anything has made."
)
NO_CHECKPOINT = (
    "validate needs --ckpt_path FILE, a checkpoint that fit wrote, or --ckpt_path last, the best "
    "of the newest run, or published weights by name, as --ckpt_path kazuto1011/voc12; or "
    "--masks DIR, a folder of masks to score"
)
BYTES = 10_000_000  # of a run folder without checkpoints

Subject = ScoredCheckpoint | ScoredFolder


def main(args: Sequence[str] | None = None, crf: Refiner | None = None) -> Run:
    """Score a checkpoint, or a folder of masks.

    Args:
        args: command line; None: this process's.
        crf: a replacement of the CRF; None: that of the command line.

    Raises:
        SystemExit: code 2 after a sentence on stderr where the input is at fault.
    """
    settle_rank()
    with kept_process(), plain_errors(), lasting_screen():
        quieten()
        typed = sys.argv[1:] if args is None else list(args)
        argv = with_checkpoint_named(command_line(typed))
        run, subject = build(argv, crf)
        check(run, subject)
        run.trainer.validate(run.module, run.datamodule, verbose=False)
        _say_what_came_out(run, subject, typed)
        return run


def build(argv: Sequence[str], crf: Refiner | None = None) -> tuple[Run, Subject]:
    """Return a validation with everything in place, and what it scores; nothing is written.

    Args:
        argv: command line, of `command_line`.
        crf: in place of the command line's.

    Raises:
        UserError: the command line, a configuration or what is scored is at fault.
    """
    parser = build_parser("validate", USAGE, DESCRIPTION)
    options = parse_run(parser, "validate", argv, _config_of_training(argv))
    options.data, options.val_data = _scored_data(options, argv), None
    check_trainer(options, validates=True)
    experiment = experiment_of(options)
    # in a configuration, `run` is the training's name
    name = options.run if "--run" in flags(argv) else None
    folder = new_run_folder(Path(options.runs_dir), experiment, name, "-validate")
    is_folder = _scores_masks(options, argv)
    path = "" if is_folder else named_checkpoint(options.ckpt_path)
    checkpoint = {} if is_folder else read_to_score(path, argv)
    put_save_dir(options.trainer.logger, RUN_FOLDER, str(folder))
    set_up_process(options)
    with refused_arguments():
        built = parser.instantiate(options)
    subject: Subject
    if is_folder:
        subject = folder_to_score(options, built, argv)
    else:
        subject = checkpoint_to_score(checkpoint, path, built, argv)
    classes = subject.module.classes
    with refused_arguments():
        datamodule = DataModule(
            built.data, classes=classes, only_selected=is_folder, **vars(built.loader)
        )
    about = {
        "seed": options.seed_everything,
        "deeplab_lit": __version__,
        "scored_on": datamodule.scored_label(),
        **subject.about(),
    }
    record, callbacks = build_callbacks(
        "validate",
        folder,
        about,
        evaluation=built.eval,
        crf=built.crf if crf is None else crf,
        progress=options.trainer.enable_progress_bar is not False,
        instances=_instances(datamodule, resized=built.eval.score_resized),
        metrics=[*subject.observers, *listed(built.metrics)],
    )
    saving = []
    if not options.trainer.fast_dev_run:
        kept = options.clone()
        kept.allow_seen_split = False  # said anew each time: no configuration may keep it
        step, further = subject.step, subject.settings
        saving.append(RunConfig(parser, kept, folder=folder, step=step, further=further))
    loggers = build_loggers(
        folder,
        experiment=experiment,
        job_type="validate",
        resume_step=None,
        wandb=options.trainer.logger in (None, True),
    )
    same = SameOnAllProcesses(options, name, path or None)
    trainer = build_trainer(built.trainer, [same, *callbacks], saving, loggers, folder)
    return Run(trainer, subject.module, datamodule, folder, options, record), subject


def _scores_masks(options: Namespace, argv: Sequence[str]) -> bool:
    """Return whether masks are scored, and no checkpoint; what is typed wins over configurations.

    Raises:
        UsageError: both are typed, or options of masks without any.
        WeightsError: there is neither.
    """
    typed = flags(argv)
    if {"--masks", "--ckpt_path"} <= typed:
        raise UsageError("--ckpt_path and --masks are two things to score: give one of them")
    if options.masks is None and options.ckpt_path is None:
        raise WeightsError(NO_CHECKPOINT)
    are_masks = options.masks is not None and "--ckpt_path" not in typed
    if not are_masks and (of_masks := sorted(typed & {f"--{name}" for name in MASKS})):
        raise UsageError(
            f"{of_masks[0]} is for masks, and a checkpoint is scored: leave it out, or give "
            "--masks DIR in place of --ckpt_path"
        )
    return are_masks


def _instances(data: DataModule, *, resized: bool) -> Instances | None:
    """Return what Cityscapes' further scores need; None for other data, or where they do not fit.

    Args:
        data: to be scored on.
        resized: they are scored at another size than their own.
    """
    if not isinstance(data.val, Cityscapes):
        return None
    if resized:
        say("Note: Cityscapes' iIoU and categories are not scored at another size than its own")
        return None
    if list(data.classes) != list(data.val.classes):
        say(
            "Note: Cityscapes' iIoU and categories are not scored: the network has its classes in "
            "another order, or by other names"
        )
        return None
    return Instances(*data.val.instances(data.val.val_split))


def _scored_data(options: Namespace, argv: Sequence[str]) -> Namespace:
    """Return the data to score on: --val_data before --data, and a command line before configs.

    Raises:
        UsageError: an option is of the data trained on, and others are scored.
    """
    typed = flags(argv)
    if options.val_data is None:
        return options.data
    if any(flag.startswith("--val_data") for flag in typed):
        return options.val_data
    if typed & DATA:
        return options.data
    if of_training := sorted(flag for flag in typed if flag.startswith("--data.")):
        owner, flag = options.val_data.class_path.rpartition(".")[2], of_training[0]
        raise UsageError(
            f"{flag} is an option of the data trained on, but the run validates on other data "
            f"({owner}): use {flag.replace('--data', '--val_data', 1)}, or name the data to score "
            "on with --data"
        )
    return options.val_data


def _config_of_training(argv: Sequence[str]) -> Path | None:
    """Return the configuration of the checkpoint's run; None where the data is named.

    Raises:
        WeightsError: neither a checkpoint nor its data is known.
        UsageError: masks are to be scored, and no data is named.
    """
    if names_data("validate", argv):
        return None
    path = value_of(argv, "ckpt_path")
    if not path and value_of(argv, "masks"):
        raise UsageError(
            "--masks: name the data on whose truth they are scored, like --data VOC --data.root "
            "VOCdevkit"
        )
    if not path:
        raise WeightsError(NO_CHECKPOINT)
    config = implied_config("validate", argv)
    if config is None:
        if path not in NAMED:
            read_trained(path)  # what is wrong with it comes first
        raise WeightsError(
            f"{path} lies in no run folder, whose config.yaml would name the data: name them with "
            "--data and --data.root, like --data VOC --data.root VOCdevkit"
        )
    is_asked = any(flag.startswith("--crf") for flag in flags(argv))
    if todays_crf(read_options(config).get("crf")) is not None and not is_asked:
        say("Note: the training scored with the CRF too; here --crf puts it in.")
    return config


def check(run: Run, subject: Subject) -> None:
    """Refuse everything that can be refused before the first image, and make the run's folder.

    Raises:
        UserError: data, or what is scored, are at fault; or a folder cannot be used.
    """
    subject.check_data(run)
    for suspicion in run.datamodule.preflight("validate"):
        say(f"WARNING: {suspicion}")
    subject.prepare(run)
    rank_zero_only(create_run_folder)(run.folder, BYTES)
    subject.introduce(run)


def _say_what_came_out(run: Run, subject: Subject, typed: Sequence[str]) -> None:
    """Leave the page; print the table, where it is written, and what to type next."""
    wandb, final, data = end_wandb(run.trainer.loggers), run.record.final, run.datamodule
    following = [] if final is None else _following(run, typed, after_crf="crf" in final)
    about = About(
        verb="validate",
        network=subject.network,
        classes=subject.module.classes,
        training=subject.training,
        step=subject.step or None,  # 0: of masks, and of files of other projects
        typed=typed,
        following=following,
    )
    leave_report(run.folder, about)
    if final is None:  # the strategy's spawned processes have scored, and one has written it
        say(f"Results     {run.folder / 'results.json'}")
        return
    subject.conclude(run)
    if not run.trainer.is_global_zero:
        return
    split = f"{data.val.title} {data.scored_name()}"
    title = f"{subject.title()} on {split}, {scored(final)}, {subject.how()}"
    after_validate(final, title, run.folder, wandb=wandb, following=following)


def _following(run: Run, typed: Sequence[str], *, after_crf: bool) -> list[str]:
    """Return the command to type next, and its words: the same with the CRF, then its parameters.

    Args:
        run: that has ended.
        typed: its command line.
        after_crf: it has scored after the CRF too.

    Returns:
        Empty where the CRF's parameters were chosen, or there is no network to choose them for, or
        a command could not be told so.
    """
    if not after_crf:
        if run.options.masks is not None and run.options.allow_missing:
            return []  # of an image without a file there is nothing to refine
        return ["validate", *words_of(typed, ["--run"], others=True), "--crf"]
    chosen = [word for word in words_of(typed, ["--crf"]) if word != "--crf"]
    if chosen or run.options.masks is not None:
        return []
    path = from_here(run.options.ckpt_path)  # tune_crf knows "last" in runs/ alone
    words, config = ["--ckpt_path", path], Path(path).expanduser().parent.parent / "config.yaml"
    if not flags(typed) & DATA and not config.is_file():
        return []  # a configuration names the data, and tune_crf takes none
    return ["tune_crf", *words, *words_of(typed, ["--data"]), "--out", "crf_search"]


if __name__ == "__main__":
    main()
