"""What libraries say on the screen although nobody who trains can do anything about it."""

import logging
import warnings

# action and words of a warning → why
WARNINGS = {
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
    """Leave such words out, and Lightning's notes on how it is set up; warnings of it stay."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for action, words in WARNINGS:
        warnings.filterwarnings(action, message=f".*{words}")
