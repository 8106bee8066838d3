from pathlib import Path

import pytest

import deeplab_lit
from deeplab_lit.cli.options import (
    add_crf,
    crf_spelled_out,
    model_class,
    with_crf_files,
    with_model_class,
)
from deeplab_lit.cli.parser import Parser, UsageError, configs_first, parse
from deeplab_lit.crf import PRESETS, DenseCRF
from deeplab_lit.errors import UserError, refused_arguments
from deeplab_lit.training.module import DeepLabModule

FILES = Path(deeplab_lit.__file__).parents[1] / "configs/crf"
VGG16 = str(FILES / "vgg16.yaml")


def built(*argv):
    parser = Parser(prog="python -m deeplab_lit.predict")
    parser.add_argument("--config", action="config")
    add_crf(parser)
    words = configs_first(crf_spelled_out(argv))
    with refused_arguments():
        return parser.instantiate(parse(parser, words, with_crf_files(words))).crf


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        ([], None),
        (["--crf"], DenseCRF()),
        (["--crf.bi_w", "5"], DenseCRF(bi_w=5)),
        (["--crf", "--crf.backend=torch"], DenseCRF(backend="torch")),
        (["--crf", VGG16], DenseCRF(bi_xy_std=65, pos_w=2, pos_xy_std=2)),
        ([f"--crf={VGG16}", "--crf.pos_w=0"], DenseCRF(bi_xy_std=65, pos_w=0, pos_xy_std=2)),
        (["--crf.pos_w=0", "--crf", VGG16], DenseCRF(bi_xy_std=65, pos_w=0, pos_xy_std=2)),
        (["--config", "{crf: {bi_w: 5}}", "--crf"], DenseCRF(bi_w=5)),
        (
            ["--config={crf: {bi_w: 5, iterations: 3}}", "--crf.iterations=4"],
            DenseCRF(5, iterations=4),
        ),
        (["--config={crf: {bi_w: 5}}", "--crf=null"], None),
        ([f"--config={{crf: {VGG16}}}"], DenseCRF(bi_xy_std=65, pos_w=2, pos_xy_std=2)),
        (["--crf=None"], None),
    ],
)
def test_the_crf_is_asked_for_alone_by_file_by_parameters_and_combined(argv, expected):
    assert built(*argv) == expected


@pytest.mark.parametrize("name", PRESETS)
def test_the_shipped_files_hold_the_released_parameters_and_name_their_source(name):
    assert built("--crf", str(FILES / f"{name}.yaml")) == DenseCRF(**PRESETS[name])
    text = (FILES / f"{name}.yaml").read_text()
    assert "# Source: " in text
    assert f"--crf configs/crf/{name}.yaml" in text


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (["--crf.bi_ww=3"], "--crf.bi_ww is no option of DenseCRF: did you mean --crf.bi_w?"),
        (["--crf.enabled=true"], "--crf.enabled is called --crf now"),
        (["--crf.preset=vgg16"], "--crf.preset is called --crf configs/crf/vgg16.yaml now"),
        (["--crf.bi_w=x"], "--crf.bi_w x: expected a number"),
        (["--crf.bi_xy_std=0"], "bi_xy_std must be above 0, got 0"),
        (["--crf.backend=gpu"], "expected one of auto, native, torch, pydensecrf"),
        (["--crf", "none.yaml"], "none.yaml cannot be read: .* expected a file like configs/crf/"),
        (["--crf=3"], "expected a file like configs/crf/vgg16.yaml"),
        (
            ["--crf", "typo.yaml"],
            "typo.yaml: bi_ww is no parameter of the CRF: expected bi_w, ",
        ),
        (["--crf", "list.yaml"], "list.yaml is no configuration"),
    ],
)
def test_mistakes_are_named(tmp_path, monkeypatch, argv, words):
    monkeypatch.chdir(tmp_path)
    Path("typo.yaml").write_text("bi_ww: 3\n")
    Path("list.yaml").write_text("[3]\n")
    with pytest.raises(UserError, match=words):
        built(*argv)


@pytest.mark.parametrize(
    "typed", [["--model", "mine.Nothing"], ["--model=nowhere.Module"], ["--model", "Shapes"],
              ["--model=pathlib.Path"], ["--model"]]
)  # fmt: skip
def test_a_training_that_is_none_is_refused_in_a_sentence(typed):
    with pytest.raises(UsageError, match=r"--model.*my_module\.MyModule"):
        model_class(with_model_class(typed), DeepLabModule)


def test_a_file_after_model_is_a_section_and_no_class():
    words = ["--model", "model.yaml", "--model.lr", "1"]
    assert with_model_class(words) == ["--model=model.yaml", "--model.lr", "1"]
    assert model_class(words, DeepLabModule) is DeepLabModule
