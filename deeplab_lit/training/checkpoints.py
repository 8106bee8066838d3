"""The checkpoints of a run: best.ckpt and last.ckpt."""

from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


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

    def save_as_last(self, trainer: Trainer) -> Path:
        """Write last.ckpt; on all processes together.

        Returns:
            The file.
        """
        path = Path(self.dirpath, "last.ckpt")
        trainer.save_checkpoint(path)
        return path
