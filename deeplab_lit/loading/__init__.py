"""Batches of data sets: the LightningDataModule, its samplers and its DataLoaders."""
