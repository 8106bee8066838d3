"""Compare trainings and commands on a device with those on the CPU: methods, switches, checkpoints.

Of a training's weights the change is compared: they begin alike.
"""

from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import partial
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer, seed_everything
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader

from deeplab_lit import fit, load, methods, predict, validate
from deeplab_lit.atomic import atomic_torch_save
from deeplab_lit.benchmark.equality import Check, distance, exact_float32
from deeplab_lit.cli.run import Run
from deeplab_lit.data import Shapes
from deeplab_lit.training.module import DeepLabModule

CPU = torch.device("cpu")
SIDE = 65  # pixels of an image
NETWORK: dict[str, Any] = {
    "backbone": "resnet10_quarter", "weights": "none", "norm": "batch", "atrous_rates": (2, 4),
    "scales": (1.0, 0.5), "lr": 1e-2, "collapse_share": 1.0,
}  # fmt: skip
METHODS: dict[str, dict[str, Any]] = {  # class: its options, strong enough to see
    "DeepLabModule": {},
    "AdaptSegNet": {"lambda_adv_main": 0.1, "lambda_adv_aux": 0.1, "aux_head": True},
    "AdvEnt": {"lambda_adv_main": 0.1},
    "MinEnt": {"lambda_ent_main": 0.1},
    "DACS": {"confidence": 0.2},
    "SelfTraining": {},
    "Distillation": {},
}
SWITCHES: dict[str, dict[str, Any]] = {
    "channels_last": {"channels_last": True},
    "gradient_checkpointing": {"gradient_checkpointing": True},
    "compile": {"compile": True},
}
TOLERANCES = {"network": 1e-2, "other parts": 1e-2, "loss": 1e-4}
FIT = {
    "--data": "Shapes", "--data.train_size": "8", "--data.val_size": "3",
    "--loader.batch_size": "2", "--loader.crop_size": "65", "--loader.num_workers": "0",
    "--model.backbone": "resnet10_quarter", "--model.weights": "none", "--model.norm": "batch",
    "--model.scales": "[1.0]", "--model.atrous_rates": "[2,4]", "--model.lr": "0.01",
    "--model.collapse_share": "1", "--model.schedule_steps": "4", "--trainer.max_steps": "4",
    "--trainer.val_check_interval": "2", "--trainer.enable_progress_bar": "false",
    "--trainer.logger": "false", "--experiment": "equality",
}  # fmt: skip


def training_checks() -> Iterator[Check]:
    """Yield the checks of trainings and commands."""
    for name in METHODS:
        is_small = name == "SelfTraining"
        yield Check(f"training {name}", partial(_method_differences, name), TOLERANCES, is_small)
    for switch, options in SWITCHES.items():
        differences = partial(_switch_differences, options, "32-true")
        yield Check(f"training, {switch}", differences, TOLERANCES, is_small=False)
    # bfloat16 on the CPU: 0.06 and 0.003. A gradient scaler may leave out the first step
    for precision, network, loss in (("bf16-mixed", 0.5, 0.05), ("16-mixed", 1.0, 0.3)):
        tolerances = {"network": network, "loss": loss}
        differences = partial(_switch_differences, {}, precision)
        yield Check(f"training, {precision}", differences, tolerances, is_small=False)
    end_to_end = {"mIoU": 1e-3, "mIoU on the CPU": 1e-3, "masks": 1e-3, "logits": 1e-4}
    yield Check("commands fit, validate, predict", _command_differences, end_to_end, False)
    resumed = {"on the device": 1e-2, "from it to the CPU": 1e-2, "from the CPU to it": 1e-2}
    yield Check("checkpoints that go on", _resumption_differences, resumed, is_small=False)


def _batches(number: int = 3) -> Any:
    """Return batches of two labeled and two other images each, drawn as Shapes draws them."""
    split = Shapes(train_size=4 * number, val_size=1).training()
    samples = [split.read(i) for i in range(4 * number)]
    images = torch.stack([torch.from_numpy(i[:SIDE, :SIDE]).permute(2, 0, 1) for i, _ in samples])
    masks = torch.stack([torch.from_numpy(mask[:SIDE, :SIDE]) for _, mask in samples])
    return [
        {
            "image": images[at : at + 2],
            "mask": masks[at : at + 2],
            "id": ["a", "b"],
            "unlabeled": {
                "image": images[at + 2 : at + 4],
                "mask": masks[at + 2 : at + 4],
                "id": ["c", "d"],
            },
        }
        for at in range(0, 4 * number, 4)
    ]


def _trained(
    name: str, device: torch.device, precision: Any = "32-true", **options: Any
) -> dict[str, Tensor]:
    """Return how three steps change the weights of a method's network and other parts; the loss."""
    seed_everything(0, verbose=False)
    with TemporaryDirectory() as folder:
        if name == "Distillation":
            options["teacher"] = str(_teacher(Path(folder)))
        module = getattr(methods, name, DeepLabModule)(Shapes.classes, **NETWORK, **options)
        before = {k: v.detach().clone() for k, v in module.named_parameters()}
        trainer = Trainer(
            accelerator="gpu" if device.type == "cuda" else "cpu",
            devices=1,
            precision=precision,
            max_steps=3,
            default_root_dir=folder,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            log_every_n_steps=1,
        )
        trainer.fit(module, DataLoader(_batches(), batch_size=None))
    change = {k: v.detach().cpu() - before[k] for k, v in module.named_parameters()}
    parts = {
        "network": [v.flatten() for k, v in change.items() if k.startswith("net.")],
        "other parts": [v.flatten() for k, v in change.items() if not k.startswith("net.")],
    }
    flat = {part: torch.cat([torch.zeros(1), *values]) for part, values in parts.items()}
    return {**flat, "loss": trainer.callback_metrics["train/loss"]}


def _teacher(folder: Path) -> Path:
    """Write the weight file of a network that nobody has trained."""
    module = DeepLabModule(Shapes.classes, **NETWORK)
    content = {"state_dict": module.state_dict(), "hyper_parameters": dict(module.hparams)}
    atomic_torch_save({**content, "global_step": 1}, folder / "teacher.ckpt")
    return folder / "teacher.ckpt"


def _method_differences(name: str, device: torch.device) -> dict[str, float]:
    with exact_float32():
        found, expected = (_trained(name, at, **METHODS[name]) for at in (device, CPU))
    return {part: distance(found[part], expected[part]) for part in expected}


def _switch_differences(
    options: dict[str, Any], precision: str, device: torch.device
) -> dict[str, float]:
    """Return how far a training under a switch is from the plain one on the CPU."""
    with exact_float32():
        found = _trained("DeepLabModule", device, precision, **options)
        expected = _trained("DeepLabModule", CPU)
    return {part: distance(found[part], expected[part]) for part in expected}


def _fit(runs: Path, name: str, device: torch.device, **more: Any) -> Run[DeepLabModule]:
    """Train by the command, four steps unless `more`, options of the trainer, says otherwise."""
    options = [f"{option}={value}" for option, value in FIT.items()]
    options += [f"--trainer.{option}={value}" for option, value in more.items()]
    return _quietly(fit.main, [*options, f"--runs_dir={runs}", f"--run={name}", *_on(device)])


def _goes_on(first: Run[DeepLabModule], device: torch.device) -> Run[DeepLabModule]:
    """Continue a run of two steps up to four, in its folder."""
    checkpoint = first.folder / "checkpoints/last.ckpt"
    arguments = [f"--ckpt_path={checkpoint}", "--trainer.max_steps=4", *_on(device)]
    return _quietly(fit.main, arguments)


def _on(device: torch.device) -> list[str]:
    """Return the options of a trainer on a device."""
    name = "gpu" if device.type == "cuda" else "cpu"
    return [f"--trainer.accelerator={name}", "--trainer.devices=1"]


def _quietly(command: Any, arguments: list[str]) -> Any:
    """Run a command of ours without its words; return what it returns."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()) as errors:
        try:
            return command(arguments)
        except SystemExit as error:
            if error.code:
                raise RuntimeError(f"exit code {error.code}: {errors.getvalue()[-500:]}") from error


def _command_differences(device: torch.device) -> dict[str, float]:
    """Train on a device; score and segment there and on the CPU; load the weights on both.

    "mIoU" is how far `validate` on the device is from the training's last validation there.
    """
    with TemporaryDirectory() as folder, exact_float32():
        runs, images = Path(folder) / "runs", Path(folder) / "images"
        images.mkdir()
        split = Shapes(train_size=1, val_size=3).validation()
        for i in range(3):
            Image.fromarray(split.read(i)[0]).save(images / f"{i}.png")
        done = _fit(runs, "one", device)
        checkpoint = done.folder / "checkpoints/last.ckpt"
        scores, masks = [], []
        for name, place in (("there", device), ("here", CPU)):
            arguments = [f"--ckpt_path={checkpoint}", "--trainer.logger=false", *_on(place)]
            scored = _quietly(validate.main, [*arguments, f"--runs_dir={runs}", f"--run={name}"])
            scores.append(_miou(scored))
            masks.append(_masks(checkpoint, images, Path(folder) / name, place))
        pixels = torch.from_numpy(split.read(0)[0]).permute(2, 0, 1)[None]
        with torch.inference_mode():
            found, expected = (load(checkpoint).to(at)(pixels.to(at)) for at in (device, CPU))
    return {
        "mIoU": abs(scores[0] - _miou(done)),
        "mIoU on the CPU": abs(scores[1] - scores[0]),
        "masks": float(np.mean(masks[0] != masks[1])),
        "logits": distance(found, expected),
    }


def _miou(run: Run[Any]) -> float:
    return run.module.scores.miou


def _masks(checkpoint: Path, images: Path, out: Path, device: torch.device) -> np.ndarray:
    """Return the masks (N,H,W) that `predict` makes on a device."""
    arguments = [f"--ckpt_path={checkpoint}", f"--images={images}", f"--out={out}"]
    _quietly(predict.main, [*arguments, f"--device={device}", "--num_workers=0"])
    return np.stack([np.asarray(Image.open(path)) for path in sorted((out / "masks").iterdir())])


def _resumption_differences(device: torch.device) -> dict[str, float]:
    """Return how far trainings that go on, on either device, end from one that never stopped.

    Compared is the change in the two steps after the checkpoint.
    """
    cases = {
        "on the device": (device, device),
        "from it to the CPU": (device, CPU),
        "from the CPU to it": (CPU, device),
    }
    with TemporaryDirectory() as folder, exact_float32():
        start = _weights(_fit(Path(folder), "half", CPU, max_steps=2))
        whole = _weights(_fit(Path(folder), "whole", CPU)) - start
        found = {}
        for number, (name, (begun_on, ended_on)) in enumerate(cases.items()):
            first = _fit(Path(folder), str(number), begun_on, max_steps=2)
            found[name] = distance(_weights(_goes_on(first, ended_on)) - start, whole)
    return found


def _weights(run: Run[DeepLabModule]) -> Tensor:
    return torch.cat([p.detach().cpu().flatten() for p in run.module.net.parameters()])
