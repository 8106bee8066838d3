"""Files that a run leaves on disk: folder, config, record, provenance, checkpoints, loggers."""
