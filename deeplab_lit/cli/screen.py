"""Print what fit and validate say, and silence what libraries say."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer

from deeplab_lit.cli.score_tables import cityscapes_table, score_table, trimap_table
from deeplab_lit.crf.parameters import in_words
from deeplab_lit.network.half_precision import why_slow
from deeplab_lit.terminal import command, from_here
from deeplab_lit.text import plural, redacted_words, say
from deeplab_lit.training.module import DeepLabModule
from deeplab_lit.types import VARIABLE

LOGGERS = ("lightning.pytorch", "lightning.fabric")
# action and words of a warning → why
WARNINGS: dict[tuple[Literal["ignore", "once"], str], str] = {
    ("ignore", "is smaller than the logging interval"): "not so: the steps that are logged are "
    "counted over the whole training, not anew in each epoch",
    ("ignore", "your dataloader is not resumable"): "not so: the training stream reads on where "
    "the optimizer steps stand (loading/sampler.py)",
    ("ignore", "does not have many workers"): "the default is one for each core, so whoever has "
    "fewer has asked for them; and Shapes is drawn faster than workers hand over",
    ("ignore", "Checkpoint directory .* exists and is not empty"): "a run that goes on has its own "
    "checkpoints there, and a new one always has a new folder (runs/folder.py)",
    ("once", "DataLoader will create .* worker processes"): "it is as true in the first epoch",
    ("ignore", "callbacks used to create the checkpoint need to be provided"): "they are those of "
    "fit alone, and a validation needs none of them",
    ("ignore", "isinstance.treespec, LeafSpec"): "Lightning's own affair with torch",
}


def quieten() -> None:
    """Silence `WARNINGS`, and Lightning's notes on how it is set up; its other warnings stay."""
    for name in LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    for action, words in WARNINGS:
        warnings.filterwarnings(action, message=f".*{words}")


def introduce(module: DeepLabModule, data: str, run: str) -> None:
    """Print what is about to be trained.

    Args:
        module: about to be trained.
        data: the data, in words.
        run: the run folder, in words.
    """
    net = module.net
    sizes = (
        f"{group['name']} {sum(p.numel() for p in group['params']):,} at {group['lr']:g}"
        for group in module.parameter_groups()
    )
    parameters = sum(p.numel() for p in net.parameters())
    say(
        f"Data        {data}",
        f"Network     {net.in_words()}: {parameters:,} parameters",
        f"Learning    {'; '.join(sizes)}",
        f"Run         {run}",
    )


def tell_precision(trainer: Trainer, *, trains: bool) -> None:
    """Say where half precision is slower than float32 here, or too coarse to train weights in.

    Args:
        trainer: of the run.
        trains: the network is trained, else only scored.

    Raises:
        UserError: torch does not compute in that precision on this processor.
    """
    name = str(trainer.precision)
    halves = {"bf16": torch.bfloat16, "16": torch.float16}
    dtype = halves.get(name.partition("-")[0])
    if dtype is None:
        return
    if trains and name.endswith("-true"):
        lost = 100 * torch.finfo(dtype).eps / 4
        say(
            f"WARNING: --trainer.precision {name} keeps the weights themselves in half precision, "
            f"which loses every step smaller than {lost:.1g} % of a weight. "
            f"Take {name.replace('true', 'mixed')}, which keeps them in float32"
        )
    device = trainer.strategy.root_device
    slow = why_slow(dtype, device, "--trainer.precision 32-true", trains=trains)
    if slow is not None:
        say(f"WARNING: {slow}")


def after_fit(
    best: dict[str, Any] | None,
    checkpoint: str,
    folder: Path,
    *,
    wandb: str = "",
    unscored: bool = False,
    config: Path | None = None,
    monitor: str = "val/miou",
    modules: Sequence[str] = (),
) -> None:
    """Print what came out, where it is, and, as the last line, what to type next.

    Args:
        best: scores of the best validation, as results.json holds them.
        checkpoint: of the best validation; empty if none was written.
        folder: of the run.
        wandb: address of W&B's run, or folder of an offline one; empty if there is none.
        unscored: the last steps have not been validated.
        config: of the run, where validate must be given it: its data set is not of this package.
        monitor: the metric by which it is the best.
        modules: Python modules of a backbone or head that is not of this package.
    """
    if best is None and checkpoint:  # validated by processes that have ended
        say(f"Done. Scores: {folder / 'results.json'}\nBest        {checkpoint}")
        return
    if best is None:
        say(
            "Done. No validation took place (--trainer.val_check_interval says after how many "
            f"batches one does). Run folder: {from_here(folder)}"
        )
        last = folder / "checkpoints/last.ckpt"
        if last.is_file():
            _say_how_to_validate(last, config, modules)
        return
    title = "Best mIoU" if monitor == "val/miou" else f"Best {monitor}: mIoU"
    say(f"\n{title} {_percent(best)} at step {best['step']}\n", score_table(best), "")
    if best["miou"] is None:
        say("WARNING: all pixels scored were void, so no validation tells which step is the best.")
    if best.get("images", 0) < best.get("images_in_split", 0):
        say(f"Scored      {scored(best)} of the validation split (trainer.limit_val_batches)")
    if checkpoint:
        say(f"Checkpoint  {from_here(checkpoint)}")
    _say_files(folder, wandb)
    if unscored:
        say("The last steps have not been validated: run validate on last.ckpt for their score.")
    if checkpoint:
        _say_how_to_validate(checkpoint, config, modules)


def _say_how_to_validate(
    checkpoint: str | Path, config: Path | None, modules: Sequence[str]
) -> None:
    following = ["--ckpt_path", from_here(checkpoint)]
    if config is not None:
        following += ["--config", from_here(config)]
    allowed = f"{VARIABLE}={','.join(modules)} " if modules else ""
    say(f"Next        {allowed}{command('deeplab_lit.validate', *following)}")


def after_validate(
    scores: dict[str, Any],
    what: str,
    folder: Path,
    *,
    wandb: str = "",
    following: Sequence[str] = (),
) -> None:
    """Print the table, where it is written, and, as the last line, what to type next.

    Args:
        scores: as results.json holds them.
        what: was scored, in words.
        folder: of the run.
        wandb: as in `after_fit`.
        following: the command to type next, and its words; empty for none.
    """
    say(f"\n{what}: mIoU {_percent(scores)}\n", score_table(scores), "")
    if "crf" in scores:
        crf = scores["crf"]
        settings = f", {words}" if (words := in_words(crf)) else ""
        say(f"CRF         {crf['seconds_per_image']:.2f} s an image{settings}")
    if "cityscapes" in scores:
        say("", cityscapes_table(scores["cityscapes"]), "")
    if "trimap" in scores:
        files = f"{from_here(folder / 'trimap.csv')}, trimap.png"
        say("", trimap_table(scores["trimap"]), "", f"Trimap      {files}")
    say(
        f"Images      {from_here(folder / 'images.csv')}, worst_best.png",
        f"Classes     {from_here(folder / 'classes.png')}, confusion.png",
    )
    _say_files(folder, wandb)
    if following:
        typed = redacted_words(following[1:])  # the screen may be a file that others read
        say(f"Next        {command(f'deeplab_lit.{following[0]}', *typed)}")


def scored(scores: dict[str, Any]) -> str:
    """Say how many images were scored, of how many if not all: "37 of 79 images"."""
    number, of = scores["images"], scores.get("images_in_split", scores["images"])
    part = "" if number == of else f"{number:,} of "
    return f"{part}{plural(of, 'image')}"


def _say_files(folder: Path, wandb: str) -> None:
    if (folder / "report.html").is_file():
        say(f"Report      {from_here(folder / 'report.html')}")
    say(
        f"Pictures    {from_here(folder / 'predictions.png')}",
        f"Results     {from_here(folder / 'results.json')}",
    )
    if wandb:
        online = "://" in wandb
        say(f"W&B         {wandb if online else command('wandb', 'sync', from_here(wandb))}")


def _percent(scores: dict[str, Any]) -> str:
    return "–" if scores["miou"] is None else f"{100 * scores['miou']:.2f} %"
