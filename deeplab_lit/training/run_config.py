"""config.yaml: the configuration that reproduces a run."""

from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.cli import SaveConfigCallback

from deeplab_lit.training.loggers import log_config
from deeplab_lit.training.redact import redacted


class RunConfig(SaveConfigCallback):
    """Saves config.yaml in the run folder, and the same to the loggers.

    Args:
        folder: of the run. Where it has a config.yaml already, because the run goes on, the new one
            is config_from_step_<n>.yaml.
        step: at which the run goes on.
        args: of the parent.
        kwargs: of the parent.
    """

    def __init__(self, *args: Any, folder: Path, step: int, **kwargs: Any) -> None:
        super().__init__(*args, save_to_log_dir=False, **kwargs)
        self.folder = folder
        self.step = step

    def save_config(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """On the first process, when a run is set up."""
        path = self.folder / "config.yaml"
        number = 1
        while path.exists():
            again = f"_{number}" if number > 1 else ""
            path = self.folder / f"config_from_step_{self.step}{again}.yaml"
            number += 1
        config = self.config.clone()  # to be repeated as a new run, from the start
        config.run = config.ckpt_path = None
        text = self.parser.dump(config, skip_none=False)
        path.write_text(text)
        log_config(trainer.loggers, redacted(yaml.safe_load(text)))
