"""What every command line has in common: whole names, one word a configuration, sentences."""

from typing import Literal

import pytest

from deeplab_lit.cli.parser import Parser, UsageError, configs, joined_configs, parse


@pytest.fixture
def parser():
    parser = Parser(prog="python -m deeplab_lit.try")
    parser.add_argument("file", type=str)
    parser.add_argument("--config", action="config")
    parser.add_argument("--runs_dir", type=str, default="runs")
    parser.add_argument("--model.lr", type=float, default=1.0)
    parser.add_argument("--model.backbone", type=Literal["resnet50", "vgg16"], default="vgg16")
    return parser


def refused(parser, *argv):
    with pytest.raises(UsageError) as caught:
        parse(parser, argv)
    return str(caught.value)


@pytest.mark.parametrize("word", ["--conf=x", "--run=x", "--model.l=1", "--model.backbon=vgg16"])
def test_no_option_may_be_abbreviated(parser, word):
    assert refused(parser, "a", word).startswith(f"{word.partition('=')[0]} is no option of try")


@pytest.mark.parametrize(
    "argv", [["--config=c"], ["--config", "c"], ["-c", "c"], ["-cc"], ["-c=c"]]
)
def test_a_configuration_is_one_word_however_it_was_typed(argv):
    assert joined_configs([*argv, "--a"]) == ["--config=c", "--a"]
    assert configs(joined_configs([*argv, "--a"])) == ["c"]


def test_a_tilde_is_the_home_folder_behind_an_equals_sign_too(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    argv = ["--ckpt_path=~/a b.ckpt", "--config=~/x.yaml", "--run=a~b", "--x=~", "--y=~nobody_/z"]
    front = ["--ckpt_path=/home/me/a b.ckpt", "--config=/home/me/x.yaml", "--run=a~b"]
    assert joined_configs(argv) == [*front, "--x=/home/me", "--y=~nobody_/z"]


@pytest.mark.parametrize("argv", [["--config"], ["--config="], ["-c"], ["--config", "--a=1"]])
def test_a_configuration_has_a_name(argv):
    with pytest.raises(UsageError, match="--config needs a file"):
        joined_configs(argv)


def test_the_nearest_configuration_is_said(parser, tmp_path):
    (tmp_path / "shapes.yaml").touch()
    with pytest.raises(ValueError, match=r"no such file: did you mean .*/shapes\.yaml\?"):
        parse(parser, ["a", f"--config={tmp_path / 'shape.yaml'}"])


def test_a_configuration_may_stand_on_the_command_line_itself(parser):
    assert parse(parser, ["a", "--config={model: {lr: 2}}"]).model.lr == 2
    with pytest.raises(ValueError, match="lr twice"):
        parse(parser, ["a", "--config={model: {lr: 2, lr: 3}}"])
