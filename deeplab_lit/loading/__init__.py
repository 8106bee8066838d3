"""Batches of data sets: the LightningDataModule, its samplers and its DataLoaders."""

from deeplab_lit.loading.datamodule import DataModule

__all__ = ["DataModule"]
