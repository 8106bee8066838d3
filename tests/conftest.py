"""What all tests share: no W&B, no network, and a training that takes a second."""

import os

os.environ["WANDB_MODE"] = "disabled"
# before torch begins: on tiny networks more threads do nothing but wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

TINY = {
    "--data": "Shapes",
    "--data.train_size": "8",
    "--data.val_size": "3",
    "--data.batch_size": "2",
    "--data.crop_size": "65",
    "--data.scales": "[1.0]",
    "--data.num_workers": "0",
    "--model.backbone": "resnet10_quarter",
    "--model.weights": "none",
    "--model.norm": "batch",
    "--model.scales": "[1.0]",
    "--model.atrous_rates": "[2,4]",
    "--model.lr": "0.01",
    "--model.collapse_share": "1",  # a few steps find no class but background
    "--trainer.accelerator": "cpu",
    "--trainer.max_steps": "4",
    "--trainer.val_check_interval": "2",
    "--trainer.check_val_every_n_epoch": "null",
    "--trainer.enable_progress_bar": "false",
}


@pytest.fixture(scope="session")
def tiny_args():
    """Builds a `fit` command line: tiny_args(runs_dir, **{"--option": "value" or None to drop})."""

    def build(runs_dir, **changes):
        options = TINY | {"--runs_dir": str(runs_dir)} | changes
        return [f"{key}={value}" for key, value in options.items() if value is not None]

    return build


@pytest.fixture(scope="session")
def trained(tmp_path_factory, tiny_args):
    """A checkpoint that `fit` wrote, in its run folder."""
    from deeplab_lit import fit

    runs = tmp_path_factory.mktemp("trained") / "runs"
    fit.main(tiny_args(runs, **{"--run": "one"}))
    return runs / "shapes/one/checkpoints/best.ckpt"


@pytest.fixture(scope="module")
def undrawn():
    """For big networks: no weights are drawn that files replace anyway, and no charts."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("kaiming_normal_", "kaiming_uniform_", "normal_"):
            patch.setattr(torch.nn.init, name, lambda tensor, *args, **kw: tensor.detach().zero_())
        patch.setattr(
            "deeplab_lit.training.score_charts.ScoreCharts.on_validation_end", lambda *args: None
        )
        yield


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)
