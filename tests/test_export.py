"""Exported files, opened with what their users have: onnxruntime, torch.export, safetensors."""

import functools
import hashlib
import json
import shlex
import sys
from pathlib import Path

import onnxruntime
import pytest
import safetensors
import torch
from safetensors.torch import load_file

import deeplab_lit
from deeplab_lit import export
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.weights.load import WeightsError

SUFFIXES = ["onnx", "pt2", "safetensors"]
SCALES = (1.0, 0.5)
KEYS = (
    *("deeplab_lit", "classes", "palette", "label_values", "preprocessing", "network"),
    *("checkpoint", "provenance"),
)


@pytest.fixture(scope="module")
def checkpoint(trained, tmp_path_factory):
    """One that says where it comes from."""
    content = torch.load(trained, weights_only=True)
    content["provenance"] = {"init": "imagenet", "split": "train_aug", "images": 8}
    content["provenance"]["command"] = "of an earlier version: not handed on"
    path = tmp_path_factory.mktemp("export") / "näme.ckpt"
    torch.save(content, path)
    return path


@pytest.fixture(scope="module")
def exported(checkpoint):
    """A file of each format, by the command, at two scales."""
    files = {suffix: checkpoint.parent / f"new/net.{suffix}" for suffix in SUFFIXES}
    for out in files.values():
        export.main([f"--ckpt_path={checkpoint}", f"--out={out}", "--eval.scales=[1.0,0.5]"])
    return files


@pytest.fixture(scope="module")
def net(checkpoint):
    return deeplab_lit.load(checkpoint)


@functools.cache
def loaded(path):
    """Graph and facts of a .pt2 file; loading takes a second."""
    facts = dict.fromkeys(KEYS, "")
    return torch.export.load(path, extra_files=facts).module(), facts


def facts_in(path):
    if path.suffix == ".onnx":
        facts = onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    elif path.suffix == ".pt2":
        facts = {key: value for key, value in loaded(path)[1].items() if value}
    else:
        with safetensors.safe_open(path, "np") as file:
            facts = file.metadata()
    return {key: json.loads(value) for key, value in facts.items()}


def run(path):
    if path.suffix == ".onnx":
        session = onnxruntime.InferenceSession(path)
        return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
    return loaded(path)[0]


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
@pytest.mark.parametrize("size", [(1, 33, 33), (1, 120, 161), (3, 64, 47)], ids=str)
@torch.no_grad()
def test_graphs_take_pixels_of_any_size_and_give_the_networks_logits(exported, net, suffix, size):
    images = torch.randint(0, 256, (size[0], 3, *size[1:]), dtype=torch.uint8)
    expected = net(images, SCALES)
    logits = run(exported[suffix])(images)
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4 * expected.abs().max().item())
    assert not torch.equal(net(images), expected)  # the scales of --eval.scales do count


@pytest.mark.parametrize(
    "arguments",
    [
        {"style": "caffe", "align_corners": False, "norm": "frozen", "scales": (0.75,)},
        {"style": "caffe", "head": "aspp_concat", "scales": (1.25,), "channels_last": True},
        {"style": "torchvision", "output_stride": 32, "scales": (1.0,)},
        {"backbone": "vgg16", "style": "caffe", "head": "largefov", "scales": (1.0,)},
    ],
    ids=str,
)
@torch.no_grad()
def test_onnx_is_right_for_every_kind_of_network(tmp_path, arguments):
    small = {"backbone": "resnet10_quarter", "norm": "batch", "atrous_rates": (2,)}
    net = DeepLabV2(4, **(small | arguments)).eval()  # one scale: each is a copy of the graph
    assert 0 < export.export(net, {}, tmp_path / "net.onnx") <= 1e-4
    graph = run(tmp_path / "net.onnx")
    for size in ((97, 80), (70, 131)):
        images = torch.arange(3 * size[0] * size[1]).view(1, 3, *size).div(300).byte()
        expected = net(images)
        tolerance = 1e-4 * expected.abs().max().item()
        torch.testing.assert_close(graph(images), expected, rtol=0, atol=tolerance)


def test_axes_have_names(exported):
    session = onnxruntime.InferenceSession(exported["onnx"])
    (images,), (logits,) = session.get_inputs(), session.get_outputs()
    assert (images.name, images.type) == ("images", "tensor(uint8)")
    assert images.shape == ["batch", 3, "height", "width"]
    assert logits.shape == ["batch", 7, "height", "width"]


def test_the_safetensors_file_is_the_networks_state_and_arguments(exported, net):
    state = load_file(exported["safetensors"])
    assert state.keys() == net.state_dict().keys()
    assert all(torch.equal(state[name], value) for name, value in net.state_dict().items())
    facts = facts_in(exported["safetensors"])
    rebuilt = DeepLabV2(len(facts["classes"]), **facts["network"])
    assert rebuilt.scales == SCALES
    assert [branch.dilation[0] for branch in rebuilt.head.branches] == [2, 4]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_files_say_what_they_are(exported, net, checkpoint, suffix):
    facts = facts_in(exported[suffix])
    checksum = {"content_sha256"} if suffix == "safetensors" else set()
    assert facts.keys() == {*KEYS, *checksum}
    assert facts["deeplab_lit"] == deeplab_lit.__version__
    assert facts["classes"] == list(net.classes)
    assert facts["classes"][:2] == ["background", "disc"]
    assert facts["palette"] == [list(color) for color in net.classes.values()]
    assert facts["label_values"] == {name: i for i, name in enumerate(net.classes)}
    assert facts["preprocessing"]["mean"] == pytest.approx([123.675, 116.28, 103.53])
    assert facts["preprocessing"]["std"] == pytest.approx([58.395, 57.12, 57.375])
    assert facts["network"]["backbone"] == "resnet10_quarter"
    assert facts["network"]["scales"] == [1.0, 0.5]
    assert facts["checkpoint"] == {
        "file": "näme.ckpt",
        "sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
    }
    assert facts["provenance"] == {"init": "imagenet", "split": "train_aug", "images": 8}


def test_a_checkpoint_without_provenance_is_exported_too(trained, tmp_path):
    content = torch.load(trained, weights_only=True)
    del content["provenance"]
    torch.save(content, tmp_path / "old.ckpt")
    out = tmp_path / "net.safetensors"
    export.main([f"--ckpt_path={tmp_path / 'old.ckpt'}", f"--out={out}"])
    assert facts_in(out).keys() == {*KEYS, "content_sha256"} - {"provenance"}
    assert facts_in(out)["network"]["scales"] == [1.0]


def test_a_flipped_bit_in_an_exported_weight_is_refused(exported, tmp_path):
    damaged = bytearray(exported["safetensors"].read_bytes())
    damaged[-5] ^= 1
    (tmp_path / "net.safetensors").write_bytes(damaged)
    with pytest.raises(WeightsError, match=r"net\.safetensors .* its checksum says: damaged"):
        deeplab_lit.load(tmp_path / "net.safetensors")
    deeplab_lit.load(exported["safetensors"])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_no_path_of_this_machine_is_in_a_file(exported, suffix):
    content = exported[suffix].read_bytes()
    assert b"DeepLabV2" in content or suffix == "safetensors"  # it is not compressed
    for path in (Path(export.__file__).parents[1], Path(torch.__file__).parents[1], Path.home()):
        assert f"{path}/".encode() not in content


def test_the_command_says_what_it_wrote(trained, tmp_path, capsys):
    out = tmp_path / "net.safetensors"
    export.main([f"--ckpt_path={trained}", f"--out={out}"])
    said = capsys.readouterr().out
    size = out.stat().st_size / 1e6
    assert f"{out}: {size:.1f} MB, 7 classes, scales 1\n" in said
    assert "differ from the network's by 0.0e+00" in said
    words = shlex.split(said.splitlines()[-1])
    assert words[0] == "Next"
    assert words[3:6] == ["deeplab_lit.predict", "--ckpt_path", str(out)]


@pytest.mark.parametrize("suffix", ["onnx", "pt2"])
def test_what_runs_an_exported_graph_is_said_as_a_line_to_type(exported, capsys, suffix):
    """Here its Python is run, without the start of a process."""
    words = shlex.split(export.how_to_run(exported[suffix]))
    assert words[-2] == "-c"
    exec(words[-1], {})
    assert "1, 7, 321, 321" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_file_that_does_not_give_the_networks_logits_is_not_kept(
    trained, exported, tmp_path, monkeypatch, capsys, suffix
):
    right = export.FORMATS[f".{suffix}"]

    def wrong(net, facts):  # of the same network at two scales
        return exported[suffix].read_bytes()

    monkeypatch.setitem(export.FORMATS, f".{suffix}", right._replace(content=wrong))
    with pytest.raises(SystemExit) as stop:
        export.main([f"--ckpt_path={trained}", f"--out={tmp_path / 'new' / f'net.{suffix}'}"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert f"net.{suffix} is not written" in error
    assert "at most 1e-04 is expected" in error
    assert not list(tmp_path.rglob("*net*"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"out": "net.pb"}, "its suffix must be one of .onnx, .pt2, .safetensors"),
        ({"out": "taken.onnx"}, "taken.onnx exists already: choose another --out"),
        ({"out": "taken.onnx/net.onnx"}, "cannot be written"),
        ({"ckpt_path": "nowhere.ckpt"}, "nowhere.ckpt: no such file"),
        ({"eval.scales": "[0.5,0]"}, "scales"),
    ],
    ids=str,
)
def test_mistakes_get_a_sentence(trained, tmp_path, capsys, options, words):
    (tmp_path / "taken.onnx").write_text("mine")
    options = {"ckpt_path": trained, "out": "net.onnx"} | options
    options["out"] = tmp_path / options["out"]
    with pytest.raises(SystemExit) as stop:
        export.main([f"--{key}={value}" for key, value in options.items()])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["taken.onnx"]
    assert (tmp_path / "taken.onnx").read_text() == "mine"


def test_last_is_the_best_of_the_newest_run(trained, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(trained.parents[4])
    export.main(["--ckpt_path=last", f"--out={tmp_path / 'net.safetensors'}"])
    assert "runs/shapes/one/checkpoints/best.ckpt" in capsys.readouterr().out
    sha = hashlib.sha256(trained.read_bytes()).hexdigest()
    with safetensors.safe_open(tmp_path / "net.safetensors", "pt") as file:
        assert json.loads(file.metadata()["checkpoint"])["sha256"] == sha


@pytest.mark.parametrize("module", ["onnxruntime", "onnxscript"])
def test_without_the_packages_of_onnx_the_extra_that_has_them_is_named(
    module, trained, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, module, None)  # as if it were not installed
    with pytest.raises(SystemExit) as stop:
        export.main([f"--ckpt_path={trained}", f"--out={tmp_path / 'net.onnx'}"])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert f'needs {module}, which is not installed: pip install "deeplab_lit[export]"' in said
    assert not list(tmp_path.iterdir())
