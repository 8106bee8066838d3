"""The options of `fit` and `validate` beside those of trainer, model and data."""

from lightning.pytorch.cli import LightningArgumentParser

from deeplab_lit.crf.options import CRFOptions
from deeplab_lit.runs.checkpoints import BestAndLast
from deeplab_lit.scoring.evaluation import Evaluation


def add_options(parser: LightningArgumentParser) -> None:
    """Run folder, evaluation, CRF, checkpoints; the classes come from the data."""
    parser.add_argument("--runs_dir", type=str, default="runs", help="Folder of all experiments.")
    parser.add_argument(
        "--experiment",
        type=str | None,
        default=None,
        help="Groups runs: runs/<experiment>/<run>/. Default: the name of the data set.",
    )
    parser.add_argument(
        "--run", type=str | None, default=None, help="Name of the run. Default: the time."
    )
    parser.add_argument(
        "--allow_seen_split",
        action="store_true",
        help="validate: score images that the checkpoint was trained on all the same.",
    )
    parser.add_argument(
        "--wandb_checkpoint",
        type=bool,
        default=False,
        help="After fit, the best checkpoint goes to W&B as an artifact too.",
    )
    parser.add_argument("--eval", type=Evaluation, default=Evaluation())
    parser.add_argument("--crf", type=CRFOptions, default=CRFOptions())
    parser.add_lightning_class_args(BestAndLast, "checkpoint")
    parser.set_defaults(
        {
            "checkpoint.monitor": "val/miou",
            "checkpoint.mode": "max",
            "checkpoint.filename": "best",
            "checkpoint.auto_insert_metric_name": False,
            "checkpoint.enable_version_counter": False,
        }
    )
    parser.link_arguments("data.classes", "model.classes", apply_on="instantiate")
