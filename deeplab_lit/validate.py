"""python -m deeplab_lit.validate: score a checkpoint; see --help."""

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from jsonargparse import Namespace
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from deeplab_lit import __version__
from deeplab_lit.cli.callbacks import build_callbacks
from deeplab_lit.cli.checks import (
    check_network,
    check_trainer,
    check_unseen,
    classes_of_scores,
)
from deeplab_lit.cli.defaults import (
    DATA,
    implied_config,
    names_data,
    with_checkpoint_named,
)
from deeplab_lit.cli.other_views import tell_other_views
from deeplab_lit.cli.parser import UsageError, configs, flags, read_config, value_of
from deeplab_lit.cli.run import (
    Run,
    build_parser,
    build_trainer,
    command_line,
    experiment_of,
    listed,
    parse_run,
    set_up_process,
)
from deeplab_lit.cli.screen import after_validate, quieten, scored
from deeplab_lit.crf import Refiner
from deeplab_lit.data import Cityscapes
from deeplab_lit.errors import lasting_screen, plain_errors, refused_arguments
from deeplab_lit.loading import DataModule
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.weights.formats import translate
from deeplab_lit.network.weights.load import (
    WeightsError,
    load_strictly,
    read_checkpoint,
    without_aux_head,
)
from deeplab_lit.runs.config import RUN_FOLDER, RunConfig, put_save_dir
from deeplab_lit.runs.folder import create_run_folder, new_run_folder, open_results_folder
from deeplab_lit.runs.loggers import build_loggers, end_wandb
from deeplab_lit.runs.provenance import Provenance
from deeplab_lit.runs.trained_on import todays_crf
from deeplab_lit.scoring.cityscapes import Instances
from deeplab_lit.scoring.evaluation import SCORED_RESIZED, ScoredNetwork
from deeplab_lit.scoring.probability_cache import cache_key
from deeplab_lit.scoring.subsets import choose_subsets, lacked_by
from deeplab_lit.text import plural, say
from deeplab_lit.yaml_files import read_options

USAGE = "python -m deeplab_lit.validate --ckpt_path FILE [options]"
DESCRIPTION = (
    "Score a checkpoint, by default on what it was trained with. --ckpt_path last: the best of "
    "the newest run."
)
NO_CHECKPOINT = (
    "validate needs --ckpt_path FILE, a checkpoint that fit wrote, or --ckpt_path last, the best "
    "of the newest run"
)
BYTES = 10_000_000  # of a run folder without checkpoints


def main(args: Sequence[str] | None = None, crf: Refiner | None = None) -> Run[ScoredNetwork]:
    """Score a checkpoint.

    Args:
        args: command line; None: this process's.
        crf: a replacement of the CRF; None: that of the command line.

    Raises:
        SystemExit: code 2 after a sentence on stderr where the input is at fault.
    """
    quieten()
    with plain_errors(), lasting_screen():
        typed = sys.argv[1:] if args is None else list(args)
        argv = with_checkpoint_named(command_line(typed))
        run, step, provenance = build(argv, crf)
        check(run, provenance)
        run.trainer.validate(run.module, run.datamodule, verbose=False)
        _say_what_came_out(run, step, typed)
        return run


def build(
    argv: Sequence[str], crf: Refiner | None = None
) -> tuple[Run[ScoredNetwork], int, Provenance]:
    """Return a validation with everything in place, the checkpoint's step, and its provenance.

    Nothing is written.

    Args:
        argv: command line, of `command_line`.
        crf: in place of the command line's.

    Returns:
        The run; the checkpoint's optimizer step; and where its weights come from.

    Raises:
        UserError: the command line, a configuration or the checkpoint is at fault.
    """
    parser = build_parser("validate", USAGE, DESCRIPTION)
    options = parse_run(parser, "validate", argv, _config_of_training(argv))
    options.data, options.val_data = _scored_data(options, argv), None
    check_trainer(options, validates=True)
    experiment = experiment_of(options)
    # in a configuration, `run` is the training's name
    name = options.run if "--run" in flags(argv) else None
    folder = new_run_folder(Path(options.runs_dir), experiment, name, "-validate")
    path = options.ckpt_path
    if path is None:
        raise WeightsError(NO_CHECKPOINT)
    checkpoint = read_checkpoint(path)
    typed = {name: read_config(name) for name in configs(argv)}
    check_network(typed, checkpoint["hyper_parameters"])
    put_save_dir(options.trainer.logger, RUN_FOLDER, str(folder))
    set_up_process(options)
    with refused_arguments():
        built = parser.instantiate(options)
    data = built.data
    classes = classes_of_scores(checkpoint["hyper_parameters"]["classes"], path, data)
    with refused_arguments():
        datamodule = DataModule(data, classes=classes, **vars(built.loader))
    source, step = without_aux_head(translate(checkpoint)), checkpoint["global_step"]
    net = DeepLabV2(len(classes), **source.network)  # whatever module has trained it
    load_strictly(net, source.state, path)
    provenance = Provenance.from_checkpoint(checkpoint)
    if names_data("validate", argv):  # so that the training's configuration is not followed
        tell_other_views(path, vars(built.eval))
    lacked = lacked_by(provenance.trained_on)
    subsets = choose_subsets(data, classes, built.eval.subsets, lacked)
    module = ScoredNetwork(net, classes, built.eval, subsets)
    about = {
        "seed": options.seed_everything,
        "deeplab_lit": __version__,
        "checkpoint": path,
        "provenance": provenance.as_dict(),
    }
    is_city = isinstance(data, Cityscapes)
    if is_city and built.eval.score_resized:
        is_city = False
        say("Note: Cityscapes' iIoU and categories are not scored at another size than its own")
    if is_city and list(classes) != list(data.classes):
        is_city = False
        say(
            "Note: Cityscapes' iIoU and categories are not scored: the network has its classes in "
            "another order, or by other names"
        )
    record, callbacks = build_callbacks(
        "validate",
        folder,
        about,
        evaluation=built.eval,
        crf=built.crf if crf is None else crf,
        progress=options.trainer.enable_progress_bar is not False,
        instances=Instances(*data.instances(data.val_split)) if is_city else None,
        metrics=listed(built.metrics),
    )
    saving = []
    if not options.trainer.fast_dev_run:
        kept = options.clone()
        kept.allow_seen_split = False  # said anew each time: no configuration may keep it
        settings = checkpoint.get("hyper_parameters", {}).items()
        trained = {name: value for name, value in settings if name != "classes"}
        further = {"model": trained}  # dashboards group scores by settings of the training
        saving.append(RunConfig(parser, kept, folder=folder, step=step, further=further))
    loggers = build_loggers(
        folder,
        experiment=experiment,
        job_type="validate",
        resume_step=None,
        wandb=options.trainer.logger in (None, True),
    )
    trainer = build_trainer(built.trainer, callbacks, saving, loggers)
    return Run(trainer, module, datamodule, folder, options, record), step, provenance


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
    """
    if names_data("validate", argv):
        return None
    path = value_of(argv, "ckpt_path")
    if not path:
        raise WeightsError(NO_CHECKPOINT)
    config = implied_config("validate", argv)
    if config is None:
        read_checkpoint(path)  # what is wrong with it comes first
        raise WeightsError(
            f"{path} lies in no run folder, whose config.yaml would name the data: name them with "
            "--data and --data.root, like --data VOC --data.root VOCdevkit"
        )
    is_asked = any(flag.startswith("--crf") for flag in flags(argv))
    if todays_crf(read_options(config).get("crf")) is not None and not is_asked:
        say("Note: the training scored with the CRF too; here --crf puts it in.")
    return config


def check(run: Run[ScoredNetwork], provenance: Provenance) -> None:
    """Refuse everything that can be refused before the first image, and make the run's folder.

    Raises:
        UserError: data or checkpoint are at fault, or a folder cannot be used.
    """
    data, options, evaluation = run.datamodule, run.options, run.module.evaluation
    net, path = run.module.net, options.ckpt_path
    is_allowed = options.allow_seen_split
    run.record.add(**check_unseen(data.val, provenance, path, allowed=is_allowed))
    for suspicion in data.preflight("validate"):
        say(f"WARNING: {suspicion}")
    if evaluation.cache_dir is not None:
        settings = cache_key(path, options.data, data.val.val_split)
        settings |= evaluation.settings(net) | {"precision": str(run.trainer.precision)}
        rank_zero_only(open_results_folder)(Path(evaluation.cache_dir), settings)
    rank_zero_only(create_run_folder)(run.folder, BYTES)
    image = data.validation().image(0)
    run.record.add(inference=evaluation.settings(net))
    if trained_on := provenance.in_words():
        say(f"Trained on {trained_on}")
    say(f"Network: {evaluation.in_words(net, image.shape[:2])}")
    if evaluation.score_resized:
        say(SCORED_RESIZED)


def _say_what_came_out(run: Run[ScoredNetwork], step: int, typed: Sequence[str]) -> None:
    """Print the table, where it is written, and what to type next."""
    wandb, final, data = end_wandb(run.trainer.loggers), run.record.final, run.datamodule
    reused = _reused(run)
    if final is None:  # the strategy's spawned processes have scored, and one has written it
        say(f"Results     {run.folder / 'results.json'}")
        return
    if not run.trainer.is_global_zero:
        return
    if reused:
        say(f"Cached      {reused}")
    evaluation, net = run.module.evaluation, run.module.net
    what = f"{run.options.ckpt_path} (step {step})"
    split = f"{data.val.title} {data.val.val_split}"
    title = f"{what} on {split}, {scored(final)}, {evaluation.title(net)}"
    is_last_word = "crf" in final or "--run" in flags(typed)
    after_validate(
        final,
        title,
        run.folder,
        wandb=wandb,
        following=[] if is_last_word else [*typed, "--crf"],
    )


def _reused(run: Run[ScoredNetwork]) -> str:
    """Say how much came from --eval.cache_dir, on all processes together; empty without it."""
    evaluation, strategy = run.module.evaluation, run.trainer.strategy
    if evaluation.cache_dir is None:
        return ""
    numbers = torch.tensor(evaluation.from_cache(), device=strategy.root_device)
    reused, replaced = strategy.reduce(numbers, reduce_op="sum").tolist()
    images = plural(reused, "image")
    sentence = f"the probabilities of {images} came from {evaluation.cache_dir}"
    if replaced:
        sentence += f"; {replaced} kept there were damaged or of other pixels, and are made anew"
    return sentence


if __name__ == "__main__":
    main()
