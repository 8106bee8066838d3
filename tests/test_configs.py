"""Every shipped configuration is parsed, instantiated, and held against what its header claims."""

from pathlib import Path

import pytest
import yaml

from deeplab_lit import cli
from deeplab_lit.data import VOC, Cityscapes, Folder, Shapes
from deeplab_lit.network.head import ASPP

CONFIGS = Path(cli.__file__).parents[1] / "configs"

# rates, scales of the network and of the augmentation, lr, crop, steps: from the papers' texts and
# the released solvers, not from the files
PAPER = {
    "voc_resnet101": ((6, 12, 18, 24), (1, 0.75, 0.5), (0.5, 0.75, 1, 1.25, 1.5), 2.5e-4, 321),
    "voc_vgg16_largefov": ((12,), (1,), (1,), 1e-3, 321),
    "voc_vgg16_aspp": ((6, 12, 18, 24), (1,), (1,), 1e-3, 321),
    "cityscapes_resnet101": ((6, 12, 18, 24), (1,), (0.5, 0.75, 1, 1.25, 1.5), 2.5e-4, 769),
}
PARAMETERS = {  # learnable ones; the normalisation of the ResNets is frozen and not among them
    "voc_resnet101": 44_048_532 - 105_344,
    "voc_vgg16_largefov": 20_505_429,
    "voc_vgg16_aspp": 37_877_652,
}
DATA = {"voc": VOC, "cityscapes": Cityscapes, "shapes": Shapes, "camvid": Folder}


class Built(Exception):
    """Stops a run when everything is built."""


@pytest.fixture
def build(monkeypatch, tmp_path):
    """The command line object of a configuration, with everything built and nothing run."""
    (tmp_path / "VOCdevkit/VOC2012/JPEGImages").mkdir(parents=True)
    (tmp_path / "classes.txt").write_text("\n".join(f"class {i}" for i in range(12)))

    def stop(self):
        raise Built(self)

    monkeypatch.setattr(cli.DeepLabCLI, "before_fit", stop)

    def run(path):
        root = [] if path.stem == "shapes" else [f"--data.root={tmp_path}"]
        with pytest.raises(Built) as stopped:
            cli.main("fit", [f"--config={path}", *root, "--trainer.accelerator=cpu"])
        return stopped.value.args[0]

    return run


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_config_builds_what_it_says(path, build):
    built = build(path)
    model, data, trainer = built.model, built.datamodule, built.trainer
    name = path.stem
    assert isinstance(data, DATA[name.split("_")[0]])
    assert built.experiment == name
    assert list(model.hparams.classes) == list(data.classes)
    assert (
        model.net.num_classes
        == {"voc": 21, "cityscapes": 19, "shapes": 7, "camvid": 11}[name.split("_")[0]]
    )
    step = data.batch_size * trainer.accumulate_grad_batches
    assert step == data.total_batch_size
    assert trainer.max_steps > 0
    batches = trainer.max_steps * trainer.accumulate_grad_batches
    assert batches % trainer.val_check_interval == 0  # the last step is validated
    if name in PAPER:
        rates, scales, augmentation, lr, crop = PAPER[name]
        assert isinstance(model.net.head, ASPP)
        first = [
            branch if name.endswith("101") else branch.fc6 for branch in model.net.head.branches
        ]
        assert [conv.dilation for conv in first] == [(rate, rate) for rate in rates]
        assert model.net.scales == scales
        assert tuple(data.transform.scales) == augmentation
        assert (data.transform.crop_size, model.hparams.lr) == (crop, lr)
        assert (model.hparams.momentum, model.hparams.weight_decay) == (0.9, 5e-4)
        assert (model.hparams.poly_power, model.hparams.head_lr_mult) == (0.9, 10)
        assert trainer.max_steps == (40_000 if name.startswith("cityscapes") else 20_000)
        assert step == 10
    if name in PARAMETERS:
        assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_config_says_what_it_claims_and_how_to_run_it(path):
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    text = "\n".join(header)
    assert "python -m deeplab_lit.fit" in text
    if path.stem in PAPER:
        assert "Table" in text
        assert "mIoU" in text
        assert "Not measured by this project" in text
    assert yaml.safe_load(path.read_text())["experiment"] == path.stem
