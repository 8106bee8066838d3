"""python -m deeplab_lit.fit: train; see --help."""

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from jsonargparse import Namespace
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from deeplab_lit import __version__
from deeplab_lit.cli.callbacks import build_callbacks
from deeplab_lit.cli.checks import (
    check_classes,
    check_same_lists,
    check_trainer,
    check_training,
    images_seen,
    seen_before,
)
from deeplab_lit.cli.defaults import (
    SHAPES,
    Start,
    find_start,
    hold_alone,
    implied_config,
    with_stored,
)
from deeplab_lit.cli.options import model_class
from deeplab_lit.cli.processes import SameOnAllProcesses, settle_rank
from deeplab_lit.cli.run import (
    Run,
    RunParser,
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
from deeplab_lit.cli.screen import after_fit, introduce, quieten, tell_precision
from deeplab_lit.errors import lasting_screen, plain_errors, refused_arguments
from deeplab_lit.loading import DataModule
from deeplab_lit.runs.checkpoints import all_known, check_monitors, kept_by, logged_names
from deeplab_lit.runs.config import RUN_FOLDER, RunConfig, put_save_dir
from deeplab_lit.runs.folder import create_run_folder
from deeplab_lit.runs.loggers import build_loggers, end_wandb, log_checkpoint
from deeplab_lit.runs.provenance import Provenance
from deeplab_lit.runs.trained_on import DATA_SETS
from deeplab_lit.scoring.evaluation import SCORED_RESIZED
from deeplab_lit.scoring.mask_quality import say_pseudo_labels
from deeplab_lit.scoring.subsets import choose_subsets
from deeplab_lit.text import say
from deeplab_lit.training.cached_features import cache_in_words
from deeplab_lit.training.module import DeepLabModule
from deeplab_lit.training.same_training import check_same_module
from deeplab_lit.training.schedule import validation_interval, why_no_validation

USAGE = "python -m deeplab_lit.fit [options]"
DESCRIPTION = "Train. Without --config and --data: on the Shapes set."
UNUSED = (
    "WARNING: nothing is learned from --unlabeled_data, for DeepLabModule looks at labeled images "
    "alone: name a method that learns from both, as --model deeplab_lit.methods.SelfTraining"
)


def main(
    args: Sequence[str] | None = None, module: type[DeepLabModule] = DeepLabModule
) -> Run[DeepLabModule]:
    """Train, or go on with a training.

    Args:
        args: command line; None: this process's.
        module: class of the training's module, unless `--model` names another.

    Raises:
        SystemExit: code 2 after a sentence on stderr where the input is at fault; 128 + signal
            where the run was interrupted.
    """
    settle_rank()
    with kept_process(), plain_errors(), lasting_screen(), ExitStack() as held:
        quieten()
        run, start = build(args, module, held)
        check(run, start)
        create(run, start, held)
        run.trainer.fit(run.module, run.datamodule, ckpt_path=start.path)
        _say_what_came_out(run, sys.argv[1:] if args is None else args)
        return run


def build(
    args: Sequence[str] | None, module: type[DeepLabModule], held: ExitStack
) -> tuple[Run[DeepLabModule], Start]:
    """Return a training with everything in place and no step done; nothing is written.

    Args:
        args: command line; None: this process's.
        module: class of the training's module.
        held: keeps other processes out of a folder in which the run goes on, until it is closed.

    Raises:
        UserError: the command line, a configuration or the checkpoint is at fault.
    """
    argv = command_line(sys.argv[1:] if args is None else args)
    module = model_class(argv, module)
    parser = build_parser("fit", USAGE, DESCRIPTION, module)
    options = _parse(parser, argv)
    experiment = experiment_of(options)
    start = find_start(options, experiment, held)
    if start.checkpoint is not None:
        check_same_module(start.checkpoint.content, module, start.checkpoint.path)
        options = with_stored(parser, argv, options, start.checkpoint)
    put_save_dir(options.trainer.logger, RUN_FOLDER, str(start.folder))
    set_up_process(options)
    with refused_arguments():
        built = parser.instantiate(options)
        datamodule = DataModule(
            built.data, built.val_data, built.unlabeled_data, **vars(built.loader)
        )
    built.model.evaluation = built.eval
    built.model.subsets = choose_subsets(
        datamodule.val, built.model.classes, built.eval.subsets, datamodule.train.never
    )
    built.checkpoint.dirpath = str(start.folder / "checkpoints")
    about = {
        "seed": options.seed_everything,
        "deeplab_lit": __version__,
        "scored_on": datamodule.scored_label(),
        "monitor": options.checkpoint.monitor,
    }
    if start.checkpoint and not start.resumes:  # a run that goes on names none but its own
        about["checkpoint"] = start.checkpoint.path
    record, callbacks = build_callbacks(
        "fit",
        start.folder,
        about,
        evaluation=built.eval,
        crf=built.crf,
        progress=options.trainer.enable_progress_bar is not False,
        resumes=start.resumes,
        monitor=options.checkpoint.monitor,
        mode=options.checkpoint.mode,
        metrics=listed(built.metrics),
    )
    saving = [built.checkpoint]
    if not options.trainer.fast_dev_run:
        saving.append(RunConfig(parser, options, folder=start.folder, step=start.step))
    loggers = build_loggers(
        start.folder,
        experiment=experiment,
        job_type="fit",
        resume_step=start.step if start.resumes else None,
        wandb=options.trainer.logger in (None, True),
    )
    name = start.folder.name if options.run or start.resumes else None  # else each its own time
    same = SameOnAllProcesses(options, name, start.path)
    trainer = build_trainer(built.trainer, [same, *callbacks], saving, loggers, start.folder)
    return Run(trainer, built.model, datamodule, start.folder, options, record), start


def _parse(parser: RunParser, argv: Sequence[str]) -> Namespace:
    """Return the options; how often to validate is among them, also where nobody has said it."""
    implied = implied_config("fit", argv)
    if implied == SHAPES:
        say("No --config and no --data: training on the built-in Shapes set (shapes.yaml).")
    options = parse_run(parser, "fit", argv, implied)
    check_trainer(options)
    trainer = options.trainer
    is_unsaid = trainer.val_check_interval is None and trainer.check_val_every_n_epoch == 1
    if is_unsaid and trainer.max_steps > 0 and trainer.max_epochs is None:
        trainer.val_check_interval = validation_interval(
            trainer.max_steps * trainer.accumulate_grad_batches
        )
    return options


def check(run: Run[DeepLabModule], start: Start) -> None:
    """Refuse everything that can be refused before the first step, and load the first weights.

    Raises:
        UserError: data, weights or the metrics to watch are at fault.
    """
    check_training(run.options, manual=not run.module.automatic_optimization)
    _tell_no_validation(run, start)
    tell_precision(run.trainer, trains=True)
    data, module = run.datamodule, run.module
    callbacks = run.trainer.callbacks  # type: ignore[attr-defined] # set when it is made
    data.validation()  # what it lacks comes before what the weights lack
    is_ours = type(module) is DeepLabModule and not run.options.metrics
    if all_known(callbacks) and is_ours:  # else the first validation shows what is logged
        subsets = module.subsets.members
        known = logged_names(data.classes, crf=run.options.crf is not None, subsets=subsets)
        check_monitors(callbacks, known)
    if start.checkpoint is None:
        first = module.initialize()
        if first.about is not None:
            say(f"Weights     {first.source}, init {first.init}: {first.about}")
    else:
        path, content = start.checkpoint
        module.check_checkpoint(content, path)
        check_classes(content["hyper_parameters"]["classes"], path, data.train)
        provenance = Provenance.from_checkpoint(content)
        check_same_lists(data, provenance, path)
        module.set_origin(provenance, None)
    weights = start.checkpoint.path if start.checkpoint else run.options.model.weights
    run.record.add(**seen_before(data.val, module.initialize(), weights))
    module.record_data(data)
    if data.unlabeled is not None and type(module) is DeepLabModule:
        say(UNUSED)
    for suspicion in data.preflight("fit"):
        say(f"WARNING: {suspicion}")
    if module.feature_cache is not None:
        cached = module.feature_cache, module.net, module.cached_layers
        say(cache_in_words(*cached, data, run.options.trainer.precision))
    if run.trainer.is_global_zero:
        run.record.add(**say_pseudo_labels(data))
    run.record.add(**images_seen(data), inference=module.evaluation.settings(module.net))
    if module.evaluation.score_resized:
        say(SCORED_RESIZED)


def _tell_no_validation(run: Run[DeepLabModule], start: Start) -> None:
    """Say before the first step that there will be no score, where batches are counted."""
    trainer, interval = run.options.trainer, run.options.trainer.val_check_interval
    counts = type(interval) is int and trainer.max_steps > 0 and run.module.automatic_optimization
    if not counts or trainer.fast_dev_run or trainer.limit_val_batches == 0:
        return
    done = start.step if start.resumes else 0
    why = why_no_validation(trainer.max_steps, done, trainer.accumulate_grad_batches, interval)
    if why is not None:
        say(f"WARNING: {why}")


def create(run: Run[DeepLabModule], start: Start, held: ExitStack) -> None:
    """Make the run's folder, and say what is about to be trained.

    Raises:
        RunFolderError: the folder is taken, or cannot be written to, or its disk is full.
    """
    weights = 4 * sum(p.numel() for p in run.module.parameters())  # bytes
    space = 3 * 2 * weights  # best, last, and one in writing; each with momentum
    rank_zero_only(create_run_folder)(run.folder, space, exist_ok=start.resumes)
    if not start.resumes:
        hold_alone(held, run.folder)
    begun = start.checkpoint
    introduce(
        run.module,
        run.datamodule.in_words(),
        f"{run.folder}" + (f", from {begun.path} (step {begun.step})" if begun else ""),
    )


def _is_followed(options: Namespace) -> bool:
    """Return whether validate follows the data of this run's config.yaml without being told."""
    sets = [options.data, options.val_data]
    return all(data is None or data.class_path in DATA_SETS for data in sets)


def _say_what_came_out(run: Run[DeepLabModule], typed: Sequence[str]) -> None:
    """Leave the page; print the scores, where they are, and what to type next."""
    checkpoints, record = kept_by(run.trainer), run.record
    best = checkpoints.best_model_path if checkpoints else ""
    if best and not Path(best).is_file():
        say(f"WARNING: {best} is not there any more, and no validation since was better.")
        best = ""
    if best and run.options.wandb_checkpoint:
        log_checkpoint(run.trainer.loggers, Path(best))
    # a data set of the user's is not followed unless it is typed
    config = None if _is_followed(run.options) else run.folder / "config.yaml"
    following = ["validate", "--ckpt_path", best, *(["--config", str(config)] if config else [])]
    about = About(
        verb="fit",
        network=run.module.net.in_words(),
        classes=run.module.classes,
        training=run.folder,
        step=record.best["step"] if record.best else None,
        typed=typed,
        following=following if best else [],
    )
    leave_report(run.folder, about)
    step = record.final["step"] if record.final else None
    network = (run.module.net.backbone_name, run.module.net.head_name)
    after_fit(
        record.best,
        best,
        run.folder,
        wandb=end_wandb(run.trainer.loggers),
        unscored=step is None or step < run.trainer.global_step,
        monitor=record.monitor,
        config=config,
        modules=sorted({name.rpartition(".")[0] for name in network if "." in name}),
    )


if __name__ == "__main__":
    main()
