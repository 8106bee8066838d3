"""python -m deeplab_lit.fit: train; see --help."""

from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.cli import ArgsType
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from deeplab_lit import __version__
from deeplab_lit.cli.checks import check_classes, check_resumable, check_training, seen_before
from deeplab_lit.cli.defaults import DATA_SETS, SHAPES
from deeplab_lit.cli.lightning_cli import DeepLabCLI, run
from deeplab_lit.cli.screen import after_fit, introduce, say
from deeplab_lit.data.check import table
from deeplab_lit.network.weights.load import WeightsError
from deeplab_lit.runs.checkpoints import (
    BEST,
    all_known,
    check_monitors,
    kept_by,
    logged_names,
)
from deeplab_lit.runs.folder import (
    NoCheckpointError,
    check_unfinished,
    hold,
    last_checkpoint,
)
from deeplab_lit.runs.loggers import end_wandb, log_checkpoint
from deeplab_lit.runs.provenance import Provenance
from deeplab_lit.text import plural
from deeplab_lit.training.schedule import validation_interval


class FitCLI(DeepLabCLI):
    """Train, or go on with a training."""

    verb = "fit"
    help = {
        "usage": "python -m deeplab_lit.fit [options]",
        "description": "Train. Without --config and --data: on the Shapes set.",
    }

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The verb, and the arguments of Trainer.fit that the command line leaves out."""
        return {
            "fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule", "weights_only"}
        }

    def begin_with(self, argv: list[str]) -> Path | None:
        """As the parent; Shapes where nothing is said."""
        config = super().begin_with(argv)
        if config == SHAPES:
            say("No --config and no --data: training on the built-in Shapes set (shapes.yaml).")
        return config

    def find_folder(self, options: Namespace, argv: list[str]) -> Path:
        """As the parent; the folder of the run that `--ckpt_path last` goes on with, or begins."""
        if options.ckpt_path != "last":
            return super().find_folder(options, argv)
        runs = Path(options.runs_dir)
        try:
            checkpoint = last_checkpoint(runs, self.experiment, options.run)
        except NoCheckpointError:
            if not options.run:
                raise
            checkpoint = runs / self.experiment / options.run / "checkpoints" / BEST
        folder = checkpoint.parents[1]
        if folder.is_dir():
            self.resumes = True
            self.hold(folder)
        options.ckpt_path = str(checkpoint) if checkpoint.is_file() else None
        if options.ckpt_path is None:
            check_unfinished(folder)
            say(f"{folder} has no checkpoint to go on from: this run begins at step 0.")
        return folder

    @rank_zero_only
    def hold(self, folder: Path) -> None:
        """Keep other processes out of the run's folder until the command ends."""
        self.held.enter_context(hold(folder))

    def open_checkpoint(self, options: Namespace) -> dict[str, Any] | None:
        """As the parent; the best checkpoint of a run that goes on, where its last is damaged."""
        try:
            return super().open_checkpoint(options)
        except WeightsError as error:
            best = self.folder / "checkpoints" / BEST
            if not self.resumes or not best.is_file() or options.ckpt_path == str(best):
                raise
            options.ckpt_path = str(best)
            checkpoint = super().open_checkpoint(options)
            step = checkpoint["global_step"]
            say(f"WARNING: {error}. Going on from {best}, step {step}, instead.")
            return checkpoint

    def before_instantiate_classes(self) -> None:
        """As the parent; refuse weights without optimizer; say how often to validate if unsaid."""
        if self.checkpoint is not None:
            check_resumable(self.checkpoint, self.config.fit.ckpt_path)
        trainer = self.config.fit.trainer
        unsaid = trainer.val_check_interval is None and trainer.check_val_every_n_epoch == 1
        if unsaid and trainer.max_steps > 0 and trainer.max_epochs is None:
            trainer.val_check_interval = validation_interval(
                trainer.max_steps * trainer.accumulate_grad_batches
            )
        super().before_instantiate_classes()

    def before_fit(self) -> None:
        """Everything that can be refused before the first step."""
        check_training(
            self.config.fit.trainer,
            self.model.evaluation,
            allow_seen_split=self.allow_seen_split,
        )
        data, path = self.datamodule, self.config.fit.ckpt_path
        values = data.split(data.val_split).label_values(len(data.classes))
        names = list(data.classes)
        label_values = {names[index]: value for index, value in values.items()}
        if all_known(self.trainer.callbacks):  # else the first validation shows what there is
            names = logged_names(data.classes, crf=self.config.fit.crf.enabled)
            check_monitors(self.trainer.callbacks, names)
        if self.checkpoint is None:
            provenance = self.model.initialize()
        else:
            self.model.check_checkpoint(self.checkpoint, path)
            check_classes(self.checkpoint["hyper_parameters"]["classes"], path, data)
            provenance = Provenance.from_checkpoint(self.checkpoint)
        self.record_seen(seen_before(data, provenance, path or self.config.fit.model.weights))
        provenance = provenance.extended(__version__, data.label(data.train_split))
        self.model.set_origin(provenance, label_values)
        for suspicion in data.preflight("fit"):
            say(f"WARNING: {suspicion}")
        if self.trainer.is_global_zero and (labels := data.pseudo_labels()):
            say(table([labels], list(data.classes)), "")
        seen = data.trained_on()
        if seen:
            self.record.about["validation_images_trained_on"] = seen
            say(
                f"WARNING: {seen} of the validation images {'is' if seen == 1 else 'are'} trained "
                "on too. Their scores say "
                "nothing about new images and compare with no published ones."
            )
        weights = 4 * sum(p.numel() for p in self.model.parameters())
        self.claim(bytes_needed=2 * weights * 3)  # momentum too; best, last, and one in writing
        if not self.resumes:
            self.hold(self.folder)
        introduce(
            self.model,
            f"{type(data).__name__}: {plural(len(data.training().ids), 'training image')} "
            f"({data.train_split}), "
            f"{plural(len(data.split(data.val_split).ids), 'validation image')} "
            f"({data.val_split}), {plural(len(data.classes), 'class')}",
            f"{self.folder}" + (f", from {self.described()}" if self.checkpoint else ""),
        )

    def after_fit(self) -> None:
        """What came out, where it is, and what to type next."""
        checkpoints = kept_by(self.trainer)
        best = checkpoints.best_model_path if checkpoints else ""
        if best and not Path(best).is_file():
            say(f"WARNING: {best} is not there any more, and no validation since was better.")
            best = ""
        if best and self.config.fit.wandb_checkpoint:
            log_checkpoint(self.trainer.loggers, Path(best))
        wandb = end_wandb(self.trainer.loggers)
        if best and self.record.final is None:  # validated by processes that have ended
            say(f"Done. Scores: {self.folder / 'results.json'}\nBest        {best}")
            return
        last = self.record.final and self.record.final["step"]
        unscored = last is None or last < self.trainer.global_step
        more = {"wandb": wandb, "unscored": unscored, "monitor": self.record.monitor}
        if self.config.fit.data.class_path not in DATA_SETS:  # not followed unless it is typed
            more["config"] = self.folder / "config.yaml"
        after_fit(self.record.best, best, self.folder, **more)


def main(args: ArgsType = None) -> FitCLI:
    """Train; as `deeplab_lit.cli.lightning_cli.run`."""
    return run(FitCLI, args)


if __name__ == "__main__":
    main()
