"""Train as long as the minutes allow, by the commands: `fit` for so many steps, then `validate`."""

import csv
from pathlib import Path
from statistics import median
from typing import Any

from deeplab_lit import fit, validate
from deeplab_lit.benchmark.gpu_report import Options, Part
from deeplab_lit.errors import UserError

GOAL = 61.6  # mIoU of CamVid's test split, quoted: DeepLab-LargeFOV, ImageNet's VGG-16
TRIAL_STEPS, FEWEST = 60, 100
SHARE = 0.7  # of the time left, for the steps; validations and the start take the rest
START = 25  # seconds of a command before its first step
CAMVID = "configs/camvid.yaml"
# the optimizer is that of the trainings on VOC in configs/README.md; head, crops and scales are not
# measured; crops are wider than high, as the images
PRETRAINED = {
    "model.backbone": "vgg16", "model.style": "caffe", "model.head": "aspp", "model.norm": "frozen",
    "model.atrous_rates": "[2,4,8,12]", "model.scales": "[1.0]", "model.optimizer": "AdamW",
    "model.lr": "1e-4", "model.weight_decay": "0.01", "model.head_lr_mult": "10",
    "model.warmup_steps": "100", "loader.batch_size": "10", "loader.total_batch_size": "10",
    "loader.crop_size": "[321,417]", "loader.scales": "[0.75,1.0,1.25,1.5]",
    "loader.color_jitter": "0.2", "trainer.precision": "bf16-mixed",
}  # fmt: skip
SMALL = {
    "data.train_size": "8", "data.val_size": "2", "loader.crop_size": "65",
    "loader.batch_size": "2", "loader.num_workers": "0", "model.collapse_share": "1",
}  # fmt: skip


def train(part: Part, options: Options) -> None:
    """Train on CamVid, from given weights or from nothing, or on Shapes; score val, test once.

    A few steps show how many the time allows. A training that is cut off goes on with the command
    that a note tells.
    """
    recipe = _recipe(options)
    done = _fit(options, recipe, 2 if options.small else TRIAL_STEPS, log_every=1, validations=1)
    rate = _steps_a_second(done.folder, int(recipe.get("loader.batch_size", "8")))
    steps = int(SHARE * max(part.left() - 3 * START, 0) * rate) if not options.small else 2
    part.note(f"{rate:.1f} steps a second: {steps} steps of {_title(options)}.")
    if steps < FEWEST and not options.small:
        part.note("These are too few: nothing is trained.")
        return
    runs = options.out / "runs"
    part.note(f"If it is cut off: fit --ckpt_path last --runs_dir {runs} goes on with it.")
    done = _fit(options, recipe, steps, log_every=10, validations=1 if options.small else 5)
    checkpoint = done.folder / "checkpoints/best.ckpt"
    for split in ("val", "test") if options.camvid else ("val",):
        if split == "test" and not part.left():
            part.note(f"validate --ckpt_path {checkpoint} --data.val_split test was not reached.")
            return
        words = [f"--ckpt_path={checkpoint}", f"--data.val_split={split}"]
        scored = _run(validate.main, [*words, *_place(options)])
        miou = 100 * scored.module.scores.miou
        goal = f"quoted: {GOAL} (DeepLab-LargeFOV)" if split == "test" else ""
        part.row(data=_title(options), split=split, steps=steps, mIoU=f"{miou:.2f} %", goal=goal)


def _title(options: Options) -> str:
    if options.camvid is None:
        return "Shapes, from nothing"
    return f"CamVid, from {Path(options.weights).name if options.weights else 'nothing'}"


def _recipe(options: Options) -> dict[str, str]:
    """Return the options of the training but for its length."""
    if options.camvid is None:
        return SMALL if options.small else {}
    recipe = {"config": CAMVID, "data.root": options.camvid}
    if options.weights is not None:
        recipe |= {**PRETRAINED, "model.weights": options.weights}
    return recipe


def _fit(
    options: Options, recipe: dict[str, str], steps: int, *, log_every: int, validations: int
) -> Any:
    words = [f"--{name}={value}" for name, value in recipe.items()]
    words += [f"--trainer.max_steps={steps}", f"--trainer.log_every_n_steps={log_every}"]
    words += [f"--trainer.val_check_interval={max(steps // validations, 1)}"]
    return _run(fit.main, [*words, *_place(options)])


def _place(options: Options) -> list[str]:
    accelerator = "gpu" if options.device.type == "cuda" else "cpu"
    words = [f"--trainer.accelerator={accelerator}", "--trainer.devices=1"]
    words += ["--trainer.logger=false"]  # no W&B; metrics.csv there is
    return [*words, f"--runs_dir={options.out / 'runs'}", "--experiment=gpu"]


def _run(command: Any, words: list[str]) -> Any:
    try:
        return command(words)
    except SystemExit as error:
        raise UserError(f"{command.__module__} ended with code {error.code}: {words}") from error


def _steps_a_second(folder: Path, batch: int) -> float:
    """Return the median that was logged of a run, without its first ones.

    Raises:
        UserError: none was.
    """
    with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
        logged = [row.get("train/images_per_second") for row in csv.DictReader(file)]
    rates = [float(value) for value in logged if value]
    if not rates:
        raise UserError(f"{folder}/metrics.csv has no train/images_per_second")
    return median(rates[len(rates) // 2 :]) / batch
