"""A validation with the CRF and everything that looks at it, done once for all tests."""

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import WandbLogger

from deeplab_lit.crf import DenseCRF
from deeplab_lit.scoring.galleries import SamplePictures, ScoreCharts, WorstAndBest
from deeplab_lit.scoring.observer import Observer
from deeplab_lit.scoring.per_image import ImageScores
from deeplab_lit.scoring.trimap import Trimap
from deeplab_lit.scoring.validation import Validation

CRF = DenseCRF(bi_xy_std=20, bi_rgb_std=20, iterations=3, backend="torch", threads=1)


class Witness(Observer):
    """Keeps the images that it sees, and what it is told at the end."""

    def start(self, trainer, network):
        self.images, self.told = [], None

    def see(self, image):
        self.images.append(image)

    def finish(self, trainer, scores, refined):
        self.told = scores, refined
        return {}


class FakeWandb(WandbLogger):
    """Is taken for W&B's logger, and keeps what it is given."""

    def __init__(self):
        self.images, self.tables = [], []

    name = version = save_dir = None
    experiment = SimpleNamespace(disabled=False)

    def log_image(self, key, images, step, caption, masks):
        self.images.append((key, step, images, caption, masks))

    def log_table(self, key, columns, data, step):
        self.tables.append((key, step, columns, data))

    def log_metrics(self, *args, **kwargs): ...

    log_hyperparams = log_graph = save = finalize = after_save_checkpoint = log_metrics


@pytest.fixture
def fake_wandb():
    return FakeWandb


@pytest.fixture
def witness():
    return Witness()


@pytest.fixture(scope="session")
def spread_out(make_module):
    """The smallest network, with weights that give every class some pixels."""

    def make(*args, **kwargs):
        module = make_module(*args, **kwargs)
        torch.nn.init.normal_(module.net.head.branches[0].weight, std=0.5)
        return module

    return make


@pytest.fixture(scope="session")
def validated(tmp_path_factory, spread_out, make_data):
    """Nine images in batches of two: folder, module, data, witness, results, and what is logged."""
    folder, witness, reports = tmp_path_factory.mktemp("validated"), Witness(), []
    observers = [ImageScores(folder), WorstAndBest(folder, 2), SamplePictures(folder, 4)]
    observers += [ScoreCharts(folder), Trimap(folder, "classes"), witness]
    validation = Validation(observers, CRF, lambda trainer, results: reports.append(results))
    module, data = spread_out(), make_data(val_size=9, eval_batch_size=2)
    wandb = FakeWandb()
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": wandb}
    trainer = Trainer(
        accelerator="cpu", devices=1, callbacks=[validation], default_root_dir=folder, **quiet
    )
    (logged,) = trainer.validate(module, data, verbose=False)
    (results,) = reports
    values = {"witness": witness, "results": results, "logged": logged, "wandb": wandb}
    return SimpleNamespace(folder=folder, module=module, data=data, **values)
