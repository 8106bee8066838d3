"""The package's configurations are found from every folder, and never in silence."""

import json

import pytest

from deeplab_lit.ablate.sweep import SweepError, read_sweep
from deeplab_lit.cli.options import crf_spelled_out
from deeplab_lit.cli.parser import configs, joined_configs, read_config
from deeplab_lit.cli.run import build_parser, command_line, parse_run
from deeplab_lit.shipped import CONFIGS, _tell, located, shipped
from deeplab_lit.yaml_files import ConfigError, read_options

CAMVID = "configs/camvid.yaml"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """A folder without configs/, in a process that has not said anything yet."""
    monkeypatch.chdir(tmp_path)
    _tell.cache_clear()
    return tmp_path


def test_a_configuration_of_the_package_is_found_from_every_folder_and_said_once(capsys):
    parser = build_parser("fit", "", "")
    argv = command_line(["--config", CAMVID, "--data.root=photos"])
    options = parse_run(parser, "fit", argv, None)
    assert options.experiment == "camvid"
    out, err = capsys.readouterr()
    assert out == ""  # what --print_config prints is a configuration
    assert err == (
        f"{CAMVID} is not in this folder, so the package's is read: {CONFIGS / 'camvid.yaml'}\n"
    )


def test_a_file_of_the_same_name_here_wins(elsewhere, capsys):
    (elsewhere / "configs").mkdir()
    (elsewhere / CAMVID).write_text("experiment: mine")
    assert read_config(*configs(joined_configs(["--config", CAMVID]))) == {"experiment": "mine"}
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("name", ["camvid.yaml", "../configs/camvid.yaml", "{a: 1}", "", "a\0b"])
def test_only_the_usual_name_stands_for_the_packages_file(name, capsys):
    assert located(name) == name
    assert capsys.readouterr().err == ""


def test_parameters_of_the_crf_and_grids_are_found_too(capsys):
    (crf,) = crf_spelled_out(["--crf", "./configs/crf/vgg16.yaml"])
    expected = read_options(CONFIGS / "crf/vgg16.yaml")
    assert json.loads(crf.removeprefix("--crf=")) == expected
    assert read_sweep("configs/ablations/head.yaml") == read_sweep(CONFIGS / "ablations/head.yaml")
    assert capsys.readouterr().err.count("so the package's is read") == 2


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("configs/camvd.yaml", CAMVID),
        ("camvid.yaml", CAMVID),
        ("voc_resnet11.yaml", "configs/voc_resnet101.yaml"),
        ("table4/msc_coc.yaml", "configs/table4/msc_coco.yaml"),
    ],
)
def test_a_name_that_is_neither_is_refused_with_those_that_are_near(typed, meant):
    with pytest.raises(ConfigError, match=rf"no such file: did you mean .*{meant}"):
        read_config(*configs(joined_configs(["--config", typed])))


def test_a_slip_in_the_name_of_a_grid_or_of_parameters_is_answered_alike():
    with pytest.raises(SweepError, match=r"did you mean configs/ablations/head\.yaml"):
        read_sweep("configs/ablations/heads.yaml")
    with pytest.raises(ConfigError, match=r"did you mean configs/crf/vgg16\.yaml.* a file like"):
        crf_spelled_out(["--crf", "configs/crf/vgg.yaml"])


def test_every_configuration_of_the_repository_is_shipped():
    assert len(shipped()) > 60
    assert shipped().keys() == {f"configs/{path.relative_to(CONFIGS)}"
                                for path in CONFIGS.rglob("*.yaml")}  # fmt: skip
