"""config.yaml: the configuration that reproduces a run, and where its loggers write."""

from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from deeplab_lit.atomic import atomic_write
from deeplab_lit.runs.loggers import log_config
from deeplab_lit.text import redacted

RUN_FOLDER = "RUN_FOLDER"  # as a logger's save_dir: the folder of the run
IN_FOLDER = ("TensorBoardLogger", "CSVLogger", "WandbLogger")


class RunConfig(SaveConfigCallback):
    """Save config.yaml in the run folder, and log the same to the loggers.

    Args:
        folder: of the run. Where a run goes on with other options, config.yaml is the one with
            which it goes on, and the one before is kept as config_until_step_<n>.yaml.
        step: at which the run goes on.
        further: sections that loggers get beside those of the file.
        args: of the parent.
        kwargs: of the parent.
    """

    def __init__(
        self,
        *args: Any,
        folder: Path,
        step: int,
        further: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **{**kwargs, "save_to_log_dir": False})
        self.folder = folder
        self.step = step
        self.further = further or {}

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Write it on the first process, when a run is set up."""
        config = self.config.clone()  # to be repeated as a new run, from the start
        config.run = config.ckpt_path = None
        put_save_dir(config.trainer.logger, str(self.folder), RUN_FOLDER)
        text = self.parser.dump(config, skip_unset=False)
        path = self.folder / "config.yaml"
        before = path.read_bytes() if path.exists() else None
        if before != text.encode():
            if before is not None and self.step:  # before the first step nothing was done with it
                with atomic_write(self._free_name()) as place:
                    place.write_bytes(before)
            with atomic_write(path) as place:
                place.write_bytes(text.encode())
        log_config(trainer.loggers, redacted(yaml.safe_load(text) | self.further))

    def _free_name(self) -> Path:
        path = self.folder / f"config_until_step_{self.step}.yaml"
        number = 2
        while path.exists():
            path = path.with_name(f"config_until_step_{self.step}_{number}.yaml")
            number += 1
        return path


def with_save_dir(argv: list[str]) -> list[str]:
    """Return a command line with `RUN_FOLDER` as save_dir of every logger that writes files.

    A save_dir that is typed later wins.
    """
    words, before = [], ""
    for word in argv:
        words.append(word)
        flag, _, name = word.partition("=") if "=" in word else (before, "", word)
        if flag in ("--trainer.logger", "--trainer.logger+") and name.endswith(IN_FOLDER):
            words.append(f"--trainer.logger.save_dir={RUN_FOLDER}")
        before = word
    return words


def put_save_dir(loggers: Any, old: str, new: str) -> None:
    """Change where loggers write that write to `old`.

    Args:
        loggers: `trainer.logger` of a parsed configuration: one logger, a list of them, or others.
        old: their save_dir.
        new: instead.
    """
    for logger in loggers if isinstance(loggers, list) else [loggers]:
        if isinstance(logger, Namespace) and logger.get("init_args.save_dir") == old:
            logger.init_args.save_dir = new
