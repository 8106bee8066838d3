"""The page's section on domain adaptation, command by command, on official layouts in miniature."""

import re
import shlex
import shutil
import zipfile
from importlib import import_module
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from deeplab_lit import fit
from deeplab_lit.data.cityscapes import LABEL_IDS, Cityscapes
from deeplab_lit.data.synthia import CLASS_OF

ROOT = Path(fit.__file__).parents[1]
SECTION = (ROOT / "deeplab_lit/methods/README.md").read_text("utf-8")
SECTION = SECTION.split("\n## Adapt to another domain\n")[1].split("\n## ")[0]
COMMANDS = [
    shlex.split(line)[2:]
    for block in re.findall(r"```bash\n(.*?)```", SECTION, re.DOTALL)
    for line in block.strip().splitlines()
]
NAMES, COLORS = list(Cityscapes.classes), np.array(list(Cityscapes.classes.values()))
# of the network and its training what would take long; everything else is the section's
SMALL = {
    "--model.backbone": "resnet6_half",
    "--model.weights": "none",
    "--model.style": "torchvision",
    "--model.norm": "batch",
    "--model.collapse_share": "1",
    "--loader.num_workers": "0",
    "--trainer.accelerator": "cpu",
    "--trainer.max_steps": "2",
    "--trainer.val_check_interval": "2",
    "--trainer.enable_progress_bar": "false",
}
TARGET = {
    f"{split}/{id.split('_')[0]}/{id}": number
    for number, (split, id) in enumerate(
        [
            ("train", "aachen_000000_000019"),
            ("train", "zurich_000001_000019"),
            ("val", "frankfurt_000000_000294"),
        ]
    )
}


def draw(seed):
    """A street: an image 128×64 pixels, (64,128,3) uint8, and its classes (64,128), 0…18."""
    rng = np.random.default_rng(seed)
    classes = np.full((64, 128), NAMES.index("sky"))
    classes[16:40] = NAMES.index("building")
    classes[40:] = NAMES.index("road")
    for name in ("car", "person", "vegetation", "wall"):
        y, x = rng.integers(20, 48), rng.integers(0, 100)
        classes[y : y + 12, x : x + 24] = NAMES.index(name)
    noise = rng.integers(-20, 21, (64, 128, 3))
    return (COLORS[classes] + noise).clip(0, 255).astype(np.uint8), classes


def png(pixels):
    return cv2.imencode(".png", pixels)[1].tobytes()


def write_zip(path, members):
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as file:
        for name, content in members.items():
            file.writestr(name, content)


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The folder to type in, with the archives that people put there."""
    monkeypatch.chdir(tmp_path)
    Path("configs").symlink_to(ROOT / "configs")
    for number in range(1, 11):
        image, classes = draw(number)
        labels = np.take(LABEL_IDS, classes).astype(np.uint8)
        labels[:2] = 34  # a license plate, which Cityscapes has under another number
        of_image = {f"images/{number:05}.png": png(image[..., ::-1])}
        write_zip(Path(f"data/gta5/{number:02}_images.zip"), of_image)
        of_labels = {f"labels/{number:05}.png": png(labels)}
        write_zip(Path(f"data/gta5/{number:02}_labels.zip"), of_labels)
    from scipy.io import savemat

    Path("split.mat").parent.mkdir(exist_ok=True)
    savemat("split.mat", {"trainIds": [[1]], "valIds": [[2]], "testIds": [[3]]})
    split = {"read_mapping/split.mat": Path("split.mat").read_bytes()}
    write_zip(Path("data/gta5/read_mapping.zip"), split)

    images, labels = {}, {}
    for name, number in TARGET.items():
        image, classes = draw(100 + number)
        ids = png(np.take(LABEL_IDS, classes).astype(np.uint8))
        images[f"leftImg8bit/{name}_leftImg8bit.png"] = png(image[..., ::-1])
        labels[f"gtFine/{name}_gtFine_labelIds.png"] = ids
    write_zip(Path("data/cityscapes/leftImg8bit_trainvaltest.zip"), images)
    write_zip(Path("data/cityscapes/gtFine_trainvaltest.zip"), labels)

    Path("data/synthia").mkdir()
    Path("data/synthia/SYNTHIA_RAND_CITYSCAPES.rar").write_bytes(b"Rar!")
    unpacked = Path("unpacked/RAND_CITYSCAPES").absolute()
    for number in range(2):
        image, classes = draw(200 + number)
        values = np.zeros((*classes.shape, 3), np.uint16)  # OpenCV's order: blue, green, red
        values[..., 2] = np.take([CLASS_OF[name] for name in NAMES], classes)
        values[..., 1] = 976
        for file, content in ((f"RGB/{number:07}", image), (f"GT/LABELS/{number:07}", values)):
            (unpacked / file).parent.mkdir(parents=True, exist_ok=True)
            (unpacked / f"{file}.png").write_bytes(png(content))
    programs = Path("programs").absolute()
    programs.mkdir()
    unar = programs / "unar"  # what really unpacks a .rar is not everywhere
    unar.write_text(f'#!/bin/sh\nexec {shutil.which("cp")} -R {unpacked} "$5"\n')
    unar.chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")

    Path("photos").mkdir()
    Image.fromarray(draw(7)[0]).save("photos/one.jpg")
    return tmp_path


def shortened(name, args):
    """The arguments of a command, and what makes it short."""
    if name == "fit":
        more = SMALL | {"--eval.resize": "[40,80]"}
        if "--data.root data/synthia" not in " ".join(args):
            more["--loader.resize"] = "[40,80]"
        if "--unlabeled_data.root" in args:
            more["--loader.unlabeled_resize"] = "[40,80]"
        return [*args, *(f"{option}={value}" for option, value in more.items())]
    if name == "prepare" and args[0] != "check":
        return [*args, "--unofficial=true"]  # of frames there are a few
    return [*args, "--eval.resize=[40,80]"] if "--eval.resize" in args else args


def test_the_section_leads_from_archives_to_predictions_in_the_order_that_it_gives(place, capsys):
    results = []
    for module, *args in COMMANDS:
        name = module.removeprefix("deeplab_lit.")
        package = import_module(module)
        command = package if hasattr(package, "main") else import_module(f"{module}.__main__")
        results.append((name, args, command.main(shortened(name, args))))
    names = [name for name, *_ in results]
    assert names[:5] == ["prepare", "prepare", "prepare", "fit", "validate"]
    assert names[5:9] == ["predict", "fit", "validate", "predict"]
    assert all(done == 0 for name, _, done in results if name == "prepare")

    fits = [run for name, _, run in results if name == "fit"]
    source_only, adapted, synthia = fits
    for run in fits:
        assert list(run.options.eval.resize) == [40, 80]
        assert run.trainer.global_step == 2
        assert run.record.final["images"] == 1
        assert type(run.datamodule.val).__name__ == "Cityscapes"
    assert [type(run.datamodule.train).__name__ for run in fits] == ["GTA5", "GTA5", "Synthia"]
    assert source_only.datamodule.unlabeled is None
    assert type(adapted.module).__name__ == "SelfTraining"
    assert {"subsets"} <= synthia.record.final.keys()  # SYNTHIA asks for them by itself
    for name, _, run in results:
        if name == "validate":
            assert len(run.record.final["iou"]) == 19
            sizes = {key: len(iou) for key, iou in run.record.final["subsets"]["iou"].items()}
            assert sizes == {"16": 16, "13": 13}
    masks = Path("data/pseudo/masks").rglob("*.png")
    made = {path.stem.removesuffix("_leftImg8bit") for path in masks}
    assert made == {name.rpartition("/")[2] for name in TARGET if name.startswith("train/")}
    assert Image.open("predictions/masks/one.png").size == (128, 64)
