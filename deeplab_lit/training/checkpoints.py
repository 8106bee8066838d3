"""The checkpoints of a run: best.ckpt and last.ckpt."""

import io
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from deeplab_lit.whole import whole_file


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there: whole or not at all.

    Lightning's own goes through the system's folder for temporary files, which may be full while
    this disk is not, or lie on another disk, from where a file does not arrive in one step.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write `checkpoint`; what stood at `path` stays until the new file is complete."""
        write_whole(checkpoint, Path(path))


def write_whole(checkpoint: dict[str, Any], path: Path) -> None:
    """Write a PyTorch file whole or not at all; folders are made.

    Raises:
        WriteError: nothing can be written there.
    """
    content = io.BytesIO()  # torch reports a full disk in words of its own
    torch.save(checkpoint, content)
    with whole_file(path) as place:
        place.write_bytes(content.getbuffer())


class BestAndLast(ModelCheckpoint):
    """Lightning's best checkpoint, and beside it last.ckpt after every validation and at the end.

    Lightning's own save_last writes only where the best one has just been written, so that a run
    would go on from its best state instead of its last.
    """

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The best if it is the best, and the last."""
        super().on_validation_end(trainer, pl_module)
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self.save_as_last(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last, for training that ends between two validations."""
        super().on_train_end(trainer, pl_module)
        self.save_as_last(trainer)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """What a resumed run knows of its best, wherever its folder lies by now.

        A run in another folder, which only starts from that checkpoint, begins with nothing.
        """
        here = Path(self.dirpath or ".")
        if not (here / Path(state_dict["best_model_path"]).name).is_file():
            return
        moved = {
            key: str(here / Path(state_dict[key]).name)
            for key in ("best_model_path", "kth_best_model_path")
            if state_dict[key]
        }
        scores = {str(here / Path(k).name): v for k, v in state_dict["best_k_models"].items()}
        known = {"best_k_models": scores, "dirpath": self.dirpath}
        super().load_state_dict(state_dict | moved | known)

    def save_as_last(self, trainer: Trainer) -> Path:
        """Write last.ckpt; on all processes together.

        Returns:
            The file.
        """
        path = Path(self.dirpath, "last.ckpt")
        trainer.save_checkpoint(path)
        return path
