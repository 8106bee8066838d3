from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
from PIL import Image

from deeplab_lit.data import Shapes
from deeplab_lit.methods.panel import draw, show_batch
from deeplab_lit.pictures.masks import palette
from deeplab_lit.runs.csv_logger import MetricsFile
from deeplab_lit.runs.loggers import HarmlessWandb


def batch(size=(33, 65), number=2):
    def image(shade):
        return torch.full((number, 3, *size), shade, dtype=torch.uint8)

    mask = torch.zeros(number, *size, dtype=torch.uint8)
    mask[:, : size[0] // 2] = 3
    ids = [f"a{i}" for i in range(number)]
    return {"image": image(40), "mask": mask, "id": ids,
            "unlabeled": {"image": image(200), "id": ids}}  # fmt: skip


class Wandb(HarmlessWandb):
    """Takes pictures, and talks to nobody."""

    experiment = SimpleNamespace(disabled=False)

    def __init__(self):
        self.log_image = MagicMock()


@pytest.fixture
def module(tmp_path):
    """A module at a step of a training of 50, without a training."""
    module = MagicMock()
    module.classes, module.global_step = Shapes.classes, 0
    module.count_steps.return_value = 50
    module.trainer.is_global_zero = True
    module.trainer.accumulate_grad_batches = 2
    module.trainer.loggers = [MetricsFile(tmp_path), Wandb()]
    return module


def pictures(folder):
    return sorted(path.name for path in folder.glob("training/*"))


def test_ten_batches_of_a_training_are_drawn_on_the_first_process(module, tmp_path):
    target = torch.zeros(2, 7, 5, 9)
    for step in range(50):
        for part in range(2):
            module.global_step = step
            show_batch(module, batch(), 2 * step + part, target=target)
    assert pictures(tmp_path) == [f"{step:06}.png" for step in range(0, 50, 5)]
    log_image = module.trainer.loggers[1].log_image
    assert [call.kwargs["step"] for call in log_image.call_args_list] == list(range(0, 50, 5))
    assert {call.args[0] for call in log_image.call_args_list} == {"train/batch"}


def test_other_processes_and_runs_without_a_folder_draw_nothing(module, tmp_path):
    module.trainer.is_global_zero = False
    show_batch(module, batch(), 0, target=torch.zeros(2, 7, 5, 9))
    module.trainer.is_global_zero, module.trainer.loggers = True, []
    show_batch(module, batch(), 0, target=torch.zeros(2, 7, 5, 9))
    assert pictures(tmp_path) == []


def test_source_target_and_mixture_stand_side_by_side_in_the_classes_colors(module, tmp_path):
    logits = torch.zeros(2, 7, 5, 9, requires_grad=True)
    with torch.no_grad():
        logits[:, 2] = 1
    images = torch.full((2, 3, 33, 65), 120.4)
    mixed = images, torch.full((2, 33, 65), 255, dtype=torch.uint8)
    show_batch(module, batch(), 0, target=logits, mixed=mixed)
    with Image.open(tmp_path / "training/000000.png") as picture:
        pixels = np.asarray(picture)
    there = set(map(tuple, pixels.reshape(-1, 3).tolist()))
    colors = palette(list(Shapes.classes.values()))
    for shade in (40, 200, 120):
        assert (shade,) * 3 in there
    for index in (0, 3, 2, 255):
        assert tuple(colors[index].tolist()) in there
    assert pixels.shape[1] == 3 * 2 * 240


def test_a_batch_of_one_and_a_large_one_are_drawn_too():
    for number, rows in ((1, 1), (9, 4)):
        content = batch(number=number)
        parts = {"source": (content["image"], content["mask"], content["id"])}
        height = 240 * 33 // 65 + 22  # with its caption
        picture = draw(parts, Shapes.classes)
        assert rows * height < picture.height < (rows + 1.5) * height
