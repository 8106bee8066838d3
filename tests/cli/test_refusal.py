"""What the parser says of a command line, and the short help."""

from typing import Literal

import pytest

from deeplab_lit import fit, validate
from deeplab_lit.cli.parser import Parser, UsageError, parse


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


def test_the_option_that_was_meant_is_said(parser):
    assert "did you mean --runs_dir?" in refused(parser, "a", "--runs=x")
    assert "did you mean --model.lr?" in refused(parser, "a", "--model.lrr=1")
    assert "did you mean" not in refused(parser, "a", "--nonsense=1")


def test_a_wrong_value_is_said_with_what_is_expected(parser):
    assert refused(parser, "a", "--model.lr=x") == "--model.lr x: expected a number"
    assert refused(parser, "a", "--model.backbone=resnet5") == (
        "--model.backbone resnet5: expected one of resnet50, vgg16 (did you mean resnet50?)"
    )
    assert refused(parser) == "FILE is missing"
    assert refused(parser, "a", "b") == "'b' is not expected here: options begin with --"
    assert refused(parser, "a", "--runs_dir") == "--runs_dir needs a value"


def test_an_option_of_a_configuration_is_said_with_its_file(parser, tmp_path):
    (tmp_path / "c.yaml").write_text("model:\n  lr: x\n")
    file = f"--config={tmp_path / 'c.yaml'}"
    assert refused(parser, "a", file) == f"{tmp_path / 'c.yaml'}: model.lr: x: expected a number"
    (tmp_path / "c.yaml").write_text("model:\n  lrr: 1\n")
    assert refused(parser, "a", file).startswith(f"{tmp_path / 'c.yaml'}: model.lrr is no option")
    (tmp_path / "c.yaml").write_text("model: null\n")
    assert refused(parser, "a", file).startswith(f"{tmp_path / 'c.yaml'}: model is null")


def test_a_configuration_without_its_base_is_refused_with_the_base(build_fit):
    """Not with a demand for --data, which would train something else."""
    row = "configs/table4/msc_coco_aug_aspp.yaml"
    said = f"{row} lies on a base: type --config configs/voc_resnet101.yaml before it"
    for typed in (["--config", row], [f"--config={row}"]):
        with pytest.raises(UsageError) as caught:
            build_fit([*typed, "--data.root", "data/voc"])
        assert said in str(caught.value)


def shown(capsys, main, *argv):
    """What a command prints for a request of help."""
    with pytest.raises(SystemExit) as stop:
        main(list(argv))
    assert stop.value.code == 0
    return capsys.readouterr().out


def test_help_can_be_read_and_help_all_has_every_option(capsys):
    short, full = (shown(capsys, fit.main, flag) for flag in ("--help", "--help_all"))
    assert len(short.splitlines()) <= 130
    assert max(map(len, short.splitlines())) <= 120
    for option in ("--data ", "--model.atrous_rates (6, 12, 18, 24)", "--trainer.max_steps -1"):
        assert option in short
    for option in ("--trainer.gradient_clip_val ", "--trainer.profiler ", "--checkpoint.filename "):
        assert option in full
        assert option not in short
    assert "--model" not in shown(capsys, validate.main, "--help")
