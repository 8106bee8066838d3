"""What the README and the pages in the folders tell people to type is understood."""

import json
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import deeplab_lit
from deeplab_lit import export, fit, validate
from deeplab_lit.__main__ import commands
from deeplab_lit.cli.parser import configs, joined_configs, parse
from deeplab_lit.data import VOC, Cityscapes
from deeplab_lit.data.shapes import draw_sample
from deeplab_lit.prepare.__main__ import build_parser, data_sections

ROOT = Path(fit.__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
FOLDERS = [path for part in ("configs", "deeplab_lit") for path in (ROOT / part).rglob("README.md")]
PAGES = {path: path.read_text("utf-8") for path in (ROOT / "README.md", *sorted(FOLDERS))}
CODE, CONFIGS, DATA, SEGMENT = (
    PAGES[ROOT / part / "README.md"]
    for part in ("deeplab_lit", "configs", "deeplab_lit/data", "deeplab_lit/segment")
)
BLOCKS = [
    block for page in PAGES.values() for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
]
LINES = [line for block in BLOCKS for line in block.strip().replace("\\\n", " ").splitlines()]
CALLS = [
    line[line.index("python -m deeplab_lit.") :]
    for line in LINES
    if "python -m deeplab_lit." in line
]
# of a table: "[options of the row]", "$SETUP", "…", and files that nobody has
TEMPLATE = re.compile(r"\[options|\$|…| (?:FILE|DIR) ")
FITS = [c for c in CALLS if " -m deeplab_lit.fit" in c and not TEMPLATE.search(c)]
HELP = ("--help", "--help_all")  # the latter where the former is short
ABSENT = ("deeplab_lit", "torch")


def call(command):
    """Name and arguments of `python -m deeplab_lit.NAME …`."""
    words = shlex.split(command)
    return words[2].removeprefix("deeplab_lit."), words[3:]


def test_the_first_screen_has_two_commands_that_need_nothing_before_them():
    first, photo, second = LINES[:3]
    setup = "python3 -m venv .venv && . .venv/bin/activate && pip install -r requirements.txt && "
    assert first == f"{setup}python -m deeplab_lit.fit"
    assert second == f"{setup}python -m pytest -n 2"
    assert photo.startswith("python -m deeplab_lit.predict --ckpt_path kazuto1011/voc12 ")
    assert README[: README.index(second)].count("\n") < 50
    assert README.count("\n") <= 380
    assert "python -m pytest -n 2" in (ROOT / ".ci/run").read_text("utf-8")


def test_every_command_is_shown():
    assert {call(command)[0] for command in CALLS} == commands().keys()


@pytest.mark.parametrize("command", FITS)
def test_fit_understands_what_is_shown(command, tmp_path, monkeypatch, build_fit):
    for folder in ("VOC2012/JPEGImages", "RGB"):  # of VOC, of Synthia
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "classes.txt").write_text("\n".join(f"class {i}" for i in range(12)))
    monkeypatch.chdir(ROOT)
    _, args = call(command)
    if "--val_data" in args:  # Cityscapes: the same classes, in another order
        (tmp_path / "classes.txt").write_text("\n".join(reversed(Cityscapes.classes)))
        (tmp_path / "leftImg8bit").mkdir()
    for option in {f"--{name}.root" for name in ("data", "val_data", "unlabeled_data")} & {*args}:
        args[args.index(option) + 1] = str(tmp_path)
    if "--model.loss.file" in args:  # what prepare check --weights would write for VOC
        args[args.index("--model.loss.file") + 1] = str(tmp_path / "weights.json")
        weights = {"enet": [1.0] * 21, "median_frequency": [1.0] * 21}
        about = {"classes": [*VOC.classes], "weights": weights}
        (tmp_path / "weights.json").write_text(json.dumps(about))
    build_fit([*args, "--trainer.accelerator=cpu", f"--runs_dir={tmp_path}"])


@pytest.mark.parametrize("command", [c for c in CALLS if "deeplab_lit.prepare check" in c])
def test_the_check_of_data_understands_what_is_shown(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    argv = joined_configs(call(command)[1])
    files = {name: data_sections(name) for name in configs(argv)}
    data = parse(build_parser(), argv, files).check.data
    told = (data.class_path.rpartition(".")[2], data.init_args.train_split)
    assert told in (("VOC", "train_aug"), ("GTA5", "all"), ("Synthia", "all"))


@pytest.mark.parametrize("command", [c for c in CALLS if not re.search(r"\.fit|prepare check", c)])
def test_the_other_commands_have_the_options_that_are_shown(command, capsys):
    name, args = call(command)
    flags = {word.partition("=")[0] for word in args if word.startswith("--")}
    if name == "ablate":  # options with a dot are those of fit
        flags = {flag for flag in flags if "." not in flag}
    module = import_module(f"deeplab_lit.{name}")
    if hasattr(module, "__path__"):
        module = import_module(f"deeplab_lit.{name}.__main__")
    command = args[: name in ("benchmark", "prepare")]
    asked = [HELP[name == "validate"]]
    for option in ("--data", "--val_data"):  # the options of this data set
        if option in args or any(flag.startswith(f"{option}.") for flag in flags):
            data = args[args.index(option) + 1] if option in args else "VOC"
            asked.append(f"{option}.help={data}")
    for help in asked:
        with pytest.raises(SystemExit):
            module.main([*command, help])
    shown = capsys.readouterr().out
    assert all(f"{flag} " in shown for flag in flags), flags


def test_every_config_and_every_module_that_is_named_exists():
    for page in PAGES.values():
        for name in re.findall(r"`(\w+\.yaml)`", page):
            assert (ROOT / "configs" / name).is_file() or name in ("config.yaml", "best.yaml")
        for name in re.findall(r"`(?:configs/)?(\w+/[\w/]+\.yaml)`", page):
            assert any((ROOT / "configs" / part / name).is_file() for part in ("", "ablations")), (
                name
            )
    flow = CODE.split("## How data flows")[1].split("\n## ")[0]
    parts = re.findall(r"^\|[^|]*\| `(\w+)/(.*?)` ", flow, re.MULTILINE)
    assert len(parts) > 8
    for folder, names in parts:
        for name in names.replace("`", "").split(", "):
            assert (ROOT / "deeplab_lit" / folder / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.parent.name)
def test_every_link_leads_somewhere(page):
    links = re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([^)\s]*))?\)", page.read_text("utf-8"))
    assert links
    for file, anchor in links:
        target = (page.parent / file) if file else page
        assert target.exists(), file
        if anchor:
            assert anchor in anchors(target.read_text("utf-8")), f"{file}#{anchor}"


def anchors(page):
    """Return what GitHub calls the headings of a page."""
    titles = re.findall(r"^#+ (.*)$", re.sub(r"```.*?```", "", page, flags=re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def test_all_shipped_configs_are_listed():
    for path in (ROOT / "configs").glob("*.yaml"):
        assert f"`{path.name}`" in CONFIGS
    for folder in (ROOT / "configs").glob("table*/"):
        (row,) = re.findall(rf"^\| … `{folder.name}/` \|(.*)$", CONFIGS, re.MULTILINE)
        assert set(re.findall(r"`(\w+)`", row)) == {path.stem for path in folder.glob("*.yaml")}


def test_the_python_example_gives_the_labels_of_the_refined_network(trained, tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert '"kazuto1011/voc12"' in code
    Image.fromarray(draw_sample(1, 0)[0][:90]).save(tmp_path / "photo.jpg", quality=95)
    names = {"kazuto1011/voc12": str(trained), "photo.jpg": str(tmp_path / "photo.jpg")}
    for name, file in names.items():
        code = code.replace(f'"{name}"', repr(file))
    found: dict[str, Any] = {}
    exec(code, found)
    image, net = found["image"], found["net"]
    with torch.no_grad():
        logits = net(torch.from_numpy(image.copy()).permute(2, 0, 1)[None])
    refined = deeplab_lit.DenseCRF()(image, logits.softmax(1)[0].numpy())
    assert np.array_equal(found["mask"], refined.argmax(0))


def test_the_onnx_example_runs_without_this_package_and_without_torch(trained, tmp_path):
    export.main([f"--ckpt_path={trained}", f"--out={tmp_path / 'net.onnx'}"])
    Image.fromarray(draw_sample(1, 0)[0][:90]).save(tmp_path / "photo.jpg", quality=95)
    section = SEGMENT.split("\n## Export\n")[1].split("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(code.strip().splitlines()) <= 22
    (tmp_path / "example.py").write_text(
        f"import sys\nsys.modules |= {dict.fromkeys(ABSENT)}\n{code}"
    )
    example = [sys.executable, "-I", "example.py"]
    run = subprocess.run(example, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr

    net = deeplab_lit.load(trained)
    pixels = np.array(Image.open(tmp_path / "photo.jpg"))
    with torch.no_grad():
        expected = net(torch.from_numpy(pixels).permute(2, 0, 1)[None])[0].argmax(0).numpy()
    with Image.open(tmp_path / "mask.png") as mask:
        assert mask.size == (161, 90)
        assert np.mean(np.asarray(mask) == expected) > 0.999  # ties may fall either way
        colors = mask.getpalette()
    named = dict(line.rsplit(maxsplit=1) for line in run.stdout.splitlines())
    for index, (name, color) in enumerate(net.classes.items()):
        assert tuple(colors[3 * index : 3 * index + 3]) == color
        share = np.mean(expected == index)
        assert (name in named) == (share > 0)
        assert share == 0 or float(named[name].rstrip("%")) == pytest.approx(100 * share, abs=0.2)


@pytest.mark.parametrize("package", ABSENT)
def test_the_example_would_notice_this_package(package, tmp_path):
    code = f"import sys\nsys.modules |= {dict.fromkeys(ABSENT)}\nimport {package}"
    run = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True)
    assert "ModuleNotFoundError" in run.stderr


def test_the_class_of_ones_own_is_trained_on_as_shown(tmp_path, monkeypatch, capsys):
    (code,) = re.findall(r"```python\n(.*?)```", DATA, re.DOTALL)
    (tmp_path / "plants.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    for split in ("train", "val"):
        (tmp_path / f"{split}.txt").write_text(f"{split}1\n{split}2\n")
        for name in (f"{split}1", f"{split}2"):
            mask = np.zeros((40, 50), np.uint8)
            mask[:20], mask[-5:] = 1, 255
            Image.fromarray(mask).save(tmp_path / f"{name}.png")
            Image.fromarray(np.stack([mask] * 3, axis=2)).save(tmp_path / f"{name}.jpg")
    data = ["--data=plants.Plants", f"--data.root={tmp_path}", "--loader.crop_size=33"]
    network = ["--model.backbone=resnet6_half", "--model.weights=none", "--model.norm=batch"]
    few = ["--model.scales=[1.0]", "--loader.num_workers=0", "--trainer.max_steps=2"]
    where = [f"--runs_dir={tmp_path}", "--trainer.accelerator=cpu", "--trainer.logger=false"]
    done = fit.main([*data, *network, *few, *where, "--loader.batch_size=2"])
    assert done.record.final["iou"].keys() == {"soil", "leaf"}
    checkpoint = done.folder / "checkpoints/best.ckpt"
    following = shlex.split(capsys.readouterr().out.splitlines()[-1])[4:]
    assert following == [
        "--ckpt_path",
        str(checkpoint),
        "--config",
        str(done.folder / "config.yaml"),
    ]
    assert validate.main([*following, *where]).record.final["images"] == 2
    assert validate.main([f"--ckpt_path={checkpoint}", *data, *where]).record.final["images"] == 2
