"""A damaged checkpoint of ours is refused in a sentence by every command, never in a traceback."""

import copy
import re
import shutil

import pytest
import torch
from PIL import Image

import deeplab_lit
from deeplab_lit import convert, export, predict, validate
from deeplab_lit.network.weights.load import WeightsError


def setting(name, value):
    return lambda content: content["hyper_parameters"].update({name: value})


def entry(name, value):
    return lambda content: content.update({name: value})


def weight(name, value):
    return lambda content: content["state_dict"].update({f"net.{name}": value})


def without_a_weight(content):
    del content["state_dict"]["net.head.branches.1.bias"]


def fewer_classes(content):
    content["hyper_parameters"]["classes"] = {"sky": [0, 0, 0]}
    content["label_values"] = {"sky": 0}


DAMAGES = {
    "no settings": (entry("hyper_parameters", None), "hyper_parameters"),
    "settings in a list": (entry("hyper_parameters", ["classes"]), r"\['classes'\], expected"),
    "no classes": (setting("classes", None), "classes is None, expected the classes' names"),
    "classes without colors": (setting("classes", {"sky": None}), r"\{'sky': None\}, expected"),
    "a color in words": (setting("classes", {"sky": "red"}), r"\{'sky': 'red'\}, expected"),
    "a color out of range": (setting("classes", {"sky": [0, 0, 256]}), r"whole numbers in 0…255"),
    "classes in a list": (setting("classes", ["sky", "road"]), r"\['sky', 'road'\], expected"),
    "no class": (setting("classes", {}), "expected the classes' names"),
    "fewer classes": (fewer_classes, r"head\..* expected \(1,"),
    "values of other classes": (entry("label_values", {"sky": 0}), "label_values is .*expected"),
    "another backbone": (setting("backbone", "resnet7"), "'resnet7', expected one of resnet18"),
    "a backbone by number": (setting("backbone", 50), "backbone is 50, expected one of"),
    "rates in words": (setting("atrous_rates", "6, 12"), "atrous_rates is '6, 12', expected"),
    "rates out of range": (setting("atrous_rates", [0, 2]), "describe no network: atrous_rates"),
    "absurdly many rates": (setting("atrous_rates", [1] * 20_000), "its atrous_rates are 20,000"),
    "an absurd rate": (setting("atrous_rates", [2, 10**20]), "a list, each a whole number"),
    "an absurd scale": (setting("scales", [1e9]), "scales is .*expected numbers up to 8"),
    "no scales": (setting("scales", None), "scales is None, expected a list"),
    "a stride in words": (setting("output_stride", "8"), "output_stride is '8', expected a whole"),
    "another stride": (setting("output_stride", 7), "describe no network: output_stride"),
    "corners in words": (setting("align_corners", "yes"), "align_corners is 'yes', expected true"),
    "provenance in words": (entry("provenance", "VOC"), "provenance is 'VOC', expected names and"),
    "provenance in a list": (entry("provenance", [1]), r"provenance is \[1\], expected names and"),
    "a split in words": (entry("provenance", {"trained_on": "VOC:val"}), "a list of splits"),
    "init as a number": (entry("provenance", {"init": 3}), "provenance.init is 3, expected a word"),
    "weights in provenance": (entry("provenance", {"a": torch.zeros(1)}), "expected plain values"),
    "no weights": (entry("state_dict", None), "no state dict"),
    "a weight that is none": (weight("head.branches.0.bias", "x"), "no state dict"),
    "a weight missing": (without_a_weight, r"missing head\.branches\.1\.bias"),
    "a weight too many": (weight("head.extra", torch.zeros(1)), r"unknown head\.extra"),
    "another shape": (weight("preprocess.mean", torch.zeros(3)), r"preprocess\.mean is \(3,\)"),
    "not finite": (weight("head.branches.0.bias", torch.full((7,), torch.nan)), "not finite"),
}  # fmt: skip
COMMANDS = {
    "validate": lambda path, new: validate.main([f"--ckpt_path={path}", f"--runs_dir={new}"]),
    "predict": lambda path, new: predict.main(
        [f"--ckpt_path={path}", f"--images={path.parent / 'image.png'}", f"--out={new}"]
    ),
    "convert": lambda path, new: convert.main([str(path), str(new)]),
    "export": lambda path, new: export.main([f"--ckpt_path={path}", f"--out={new}.safetensors"]),
}


@pytest.fixture(scope="module")
def good(trained):
    return torch.load(trained, weights_only=True)


@pytest.fixture(scope="module")
def run(trained, tmp_path_factory):
    """A run folder with an image, and no checkpoint in it yet."""
    run = tmp_path_factory.mktemp("damaged") / "run"
    (run / "checkpoints").mkdir(parents=True)
    shutil.copy(trained.parents[1] / "config.yaml", run)
    Image.new("RGB", (65, 65)).save(run / "checkpoints/image.png")
    return run


@pytest.fixture(params=DAMAGES)
def damaged(request, good, run):
    """A damaged checkpoint, and what has to be said of it."""
    change, words = DAMAGES[request.param]
    content = copy.deepcopy(good)
    change(content)
    path = run / "checkpoints/bad.ckpt"
    torch.save(content, path)
    return path, words


def test_every_command_says_what_is_wrong_with_which_file(damaged, tmp_path, capsys):
    path, words = damaged
    for name, command in COMMANDS.items():
        with pytest.raises(SystemExit) as stop:
            command(path, tmp_path / "new")
        assert stop.value.code == 2
        err = capsys.readouterr().err
        assert err.startswith(f"error: {path}"), name
        assert err.count("\n") == 1, name
        assert re.search(words, err), name
        assert not list(tmp_path.iterdir()), name
    with pytest.raises(WeightsError, match=words):
        deeplab_lit.load(path)


def test_the_same_checkpoint_undamaged_is_taken_by_every_command(good, run, tmp_path):
    path = run / "checkpoints/good.ckpt"
    torch.save(good | {"metadata": None}, path)  # of a file of PyTorch it says nothing
    for name, command in COMMANDS.items():
        command(path, tmp_path / name)
    assert len(list(tmp_path.iterdir())) == len(COMMANDS)
