"""What the README tells people to type is what the package understands."""

import re
import shlex
from functools import partial
from importlib import import_module
from pathlib import Path

import pytest

from deeplab_lit import cli
from deeplab_lit.__main__ import commands
from deeplab_lit.prepare.__main__ import build_parser
from deeplab_lit.prepare.check import data_section

ROOT = Path(cli.__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
LINES = [line for block in BLOCKS for line in block.strip().splitlines()]
CALLS = [
    line[line.index("python -m deeplab_lit.") :] for line in LINES if "-m deeplab_lit." in line
]


class Built(Exception):
    """Stops a run when everything is built."""


def call(command):
    """Name and arguments of `python -m deeplab_lit.NAME …`."""
    words = shlex.split(command)
    return words[2].removeprefix("deeplab_lit."), words[3:]


def test_the_first_screen_has_two_commands_that_need_nothing_before_them():
    first, second = LINES[:2]
    setup = "python3 -m venv .venv && . .venv/bin/activate && pip install -r requirements.txt && "
    assert first == f"{setup}python -m deeplab_lit.fit"
    assert second == f"{setup}python -m pytest"
    assert README[: README.index(second)].count("\n") < 40
    assert "python -m pytest" in (ROOT / ".ci/run").read_text("utf-8")


def test_every_command_is_shown():
    assert {call(command)[0] for command in CALLS} == commands().keys()


@pytest.mark.parametrize("command", [c for c in CALLS if " -m deeplab_lit.fit" in c])
def test_fit_understands_what_is_shown(command, tmp_path, monkeypatch):
    def stop(self):
        raise Built

    (tmp_path / "VOC2012/JPEGImages").mkdir(parents=True)
    (tmp_path / "classes.txt").write_text("\n".join(f"class {i}" for i in range(12)))
    monkeypatch.setattr(cli.DeepLabCLI, "before_fit", stop)
    monkeypatch.chdir(ROOT)
    _, args = call(command)
    if "--data.root" in args:
        args[args.index("--data.root") + 1] = str(tmp_path)
    with pytest.raises(Built):
        cli.main("fit", [*args, "--trainer.accelerator=cpu", f"--runs_dir={tmp_path}"])


@pytest.mark.parametrize("command", [c for c in CALLS if "deeplab_lit.prepare check" in c])
def test_the_check_of_data_understands_what_is_shown(command, monkeypatch):
    monkeypatch.chdir(ROOT)
    options = build_parser().parse_args(data_section(call(command)[1]))
    assert options.check.data.class_path == "deeplab_lit.data.VOC"
    assert options.check.data.init_args.train_split == "train_aug"


@pytest.mark.parametrize("command", [c for c in CALLS if not re.search(r"\.fit|prepare check", c)])
def test_the_other_commands_have_the_options_that_are_shown(command, capsys):
    name, args = call(command)
    flags = {word.partition("=")[0] for word in args if word.startswith("--")}
    package = "deeplab_lit.prepare.__main__" if name == "prepare" else f"deeplab_lit.{name}"
    main = partial(cli.main, name) if name in ("fit", "validate") else import_module(package).main
    with pytest.raises(SystemExit):
        main([*args[: name in ("benchmark", "prepare")], "--help"])
    shown = capsys.readouterr().out
    assert all(f"{flag} " in shown for flag in flags), flags


def test_every_config_and_every_module_that_is_named_exists():
    for name in re.findall(r"`(\w+\.yaml)`", README):
        assert (ROOT / "configs" / name).is_file() or name in ("config.yaml", "best.yaml")
    flow = README.split("## How data flows")[1].split("\n## ")[0]
    parts = re.findall(r"^\|[^|]*\| `(\w+)/(.*?)` ", flow, re.MULTILINE)
    assert len(parts) > 8
    for folder, names in parts:
        for name in names.replace("`", "").split(", "):
            assert (ROOT / "deeplab_lit" / folder / name).exists(), name
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / picture).is_file()


def test_all_shipped_configs_are_listed():
    for path in (ROOT / "configs").glob("*.yaml"):
        assert f"`{path.name}`" in README
