"""Files of other projects become checkpoints that every command takes."""

import json
import re
import shlex
import sys

import numpy as np
import pytest
import source_networks as theirs
import torch
from caffe_writer import write_caffemodel
from layouts import caffe_layers, kazuto1011_state, torchvision_state
from PIL import Image

import deeplab_lit
from deeplab_lit import convert, fit, validate
from deeplab_lit.__main__ import main as commands
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.weights import FORMATS
from deeplab_lit.network.weights.load import WeightsError
from deeplab_lit.network.weights.published import NAMED
from deeplab_lit.network.weights.start import initialize
from deeplab_lit.runs.provenance import INITS

pytestmark = pytest.mark.usefixtures("undrawn")
SIZES = {"0": (65, 97), "1": (97, 65)}  # at 32k + 1 the authors' multi-scale network exists


@pytest.fixture(scope="module")
def resnet101():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return theirs.random_resnet101()


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A folder of two validation images with random masks of 21 classes, and void."""
    root, rng = tmp_path_factory.mktemp("data") / "mine", np.random.default_rng(0)
    for name, size in SIZES.items():
        for kind in ("images/val", "labels/val"):
            (root / kind).mkdir(parents=True, exist_ok=True)
        coarse = rng.integers(0, 256, (5, 6, 3), np.uint8)
        Image.fromarray(coarse).resize(size[::-1]).save(root / f"images/val/{name}.png")
        mask = Image.fromarray(rng.choice([*range(21), 255], (8, 9)).astype(np.uint8))
        mask.resize(size[::-1], Image.NEAREST).save(root / f"labels/val/{name}.png")
    (root / "classes.txt").write_text("\n".join(f"class {i}" for i in range(21)))
    return root


@pytest.fixture(scope="module")
def files(resnet101, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    caffe = write_caffemodel(folder / "train2_iter_20000.caffemodel", caffe_layers(resnet101))
    torch.save(kazuto1011_state(resnet101), folder / "checkpoint_final.pth")
    return {"caffe": caffe, "kazuto1011": folder / "checkpoint_final.pth"}


@pytest.fixture(scope="module")
def converted(files, tmp_path_factory):
    """Format → checkpoint."""
    folder = tmp_path_factory.mktemp("converted")
    for format, file in files.items():
        convert.main([str(file), str(folder / f"{format}.ckpt")])
    return {format: folder / f"{format}.ckpt" for format in files}


def read(path):
    return torch.load(path, weights_only=True)


@torch.inference_mode()
def test_load_takes_the_checkpoint_and_the_file_itself(files, converted):
    image = torch.randint(0, 256, (1, 3, 65, 65), dtype=torch.uint8)
    for format, file in files.items():
        one, other = deeplab_lit.load(converted[format]), deeplab_lit.load(file)
        assert torch.equal(one(image), other(image))
        assert one.classes == other.classes
        assert list(one.classes)[15] == "person"


def test_the_checkpoint_says_where_it_comes_from(converted):
    found = read(converted["caffe"])["provenance"]
    assert (found["init"], found["trained_on"]) == ("coco", ["VOC:trainval_aug"])
    assert found["source"] == "train2_iter_20000.caffemodel"
    assert "command" not in found  # nor what was typed, which may hold paths and keys
    assert found["version"] == deeplab_lit.__version__
    assert read(converted["kazuto1011"])["provenance"]["trained_on"] == ["unknown"]


def test_the_command_line_wins_over_what_the_name_says(files, tmp_path, capsys):
    (tmp_path / "classes.txt").write_text("\n".join(f"c{i}" for i in range(21)))
    args = ["--init=imagenet", "--trained_on", "VOC:train", "Mine:all"]
    args.append(f"--data_classes={tmp_path / 'classes.txt'}")
    convert.main([str(files["caffe"]), str(tmp_path / "out.ckpt"), *args])
    content = read(tmp_path / "out.ckpt")
    assert content["provenance"]["init"] == "imagenet"
    assert content["provenance"]["trained_on"] == ["VOC:train", "Mine:all"]
    assert list(content["hyper_parameters"]["classes"])[20] == "c20"
    out = capsys.readouterr().out
    assert "Copied      632 weights" in out
    assert "10, a copy for another scale, which shares its weights: conv1_res075/0" in out
    assert "VOC:train, Mine:all" in out


def test_a_checkpoint_without_head_starts_a_training_and_nothing_else(resnet101, tmp_path, capsys):
    layers = caffe_layers({k: v for k, v in resnet101.items() if k != "head"}, multi_scale=False)
    write_caffemodel(tmp_path / "init.caffemodel", layers)
    convert.main([str(tmp_path / "init.caffemodel"), str(tmp_path / "init.ckpt")])
    assert "--model.style caffe --model.weights" in capsys.readouterr().out
    with pytest.raises(WeightsError, match=r"--model\.weights"):
        deeplab_lit.load(tmp_path / "init.ckpt")
    net = DeepLabV2(3, style="caffe")
    source = initialize(net, str(tmp_path / "init.ckpt"))
    assert torch.equal(net.backbone.conv1.weight[:, 2], resnet101["conv1"][0][:, 0])
    assert source.provenance["init"] == "coco"


def refused(capsys, *args):
    with pytest.raises(SystemExit) as stop:
        convert.main([str(arg) for arg in args])
    assert stop.value.code == 2
    return capsys.readouterr().err


def test_weights_that_are_missing_are_refused_unless_they_are_named(resnet101, tmp_path, capsys):
    state = kazuto1011_state(resnet101, counters=False)
    del state["base.aspp.c3.bias"]
    file, out = tmp_path / "checkpoint.pth", tmp_path / "out.ckpt"
    torch.save(state, file)
    assert "missing head.branches.3.bias" in refused(capsys, file, out)
    assert not out.exists()
    convert.main([str(file), str(out), "--allow_missing", "head.branches.3.bias"])
    assert "Missing     1, initialized at random: head.branches.3.bias" in capsys.readouterr().out


def test_mistakes_are_sentences_and_leave_no_file(files, tmp_path, capsys):
    file, out = files["kazuto1011"], tmp_path / "out.ckpt"
    assert "--format tensorflow: expected one of caffe," in refused(
        capsys, file, out, "--format=tensorflow"
    )
    assert "--init voc: expected one of imagenet," in refused(capsys, file, out, "--init=voc")
    text = " ".join(convert.build_parser().format_help().split())
    assert ", ".join(FORMATS) in text
    assert ", ".join(INITS) in text
    assert "expected DATA:SPLIT" in refused(capsys, file, out, "--trained_on", "VOC")
    assert "--branches is for" in refused(capsys, file, out, "--branches=2")
    assert "but the network has 21" in refused(capsys, file, out, "--data_classes=cityscapes")
    assert "has no base.layer1.conv1.conv.weight" in refused(capsys, file, out, "--format=caffe")
    assert not out.exists()
    out.write_bytes(b"mine")
    assert "exists already" in refused(capsys, file, out)
    assert out.read_bytes() == b"mine"


def test_an_option_that_matches_nothing_is_refused_by_name(files, resnet101, tmp_path, capsys):
    file, out = files["kazuto1011"], tmp_path / "out.ckpt"
    words = "--ignore aspp.c0.weight: the file has no such name; did you mean base.aspp.c0.weight?"
    assert words in refused(capsys, file, out, "--ignore", "aspp.c0.weight")
    words = "--allow_missing head.branches.3.bias: the file has it"
    assert words in refused(capsys, file, out, "--allow_missing", "head.branches.3.bias")
    words = "--allow_missing head.bias: the network has no such weight"
    assert words in refused(capsys, file, out, "--allow_missing", "head.bias")
    torch.save(torchvision_state(resnet101), tmp_path / "resnet101COCO-41f33a49.pth")
    file = tmp_path / "resnet101COCO-41f33a49.pth"
    assert "--branches 2: the file has no branches" in refused(capsys, file, out, "--branches=2")
    words = "has no head that was trained, so it has no classes to name"
    assert words in refused(capsys, file, out, "--data_classes=voc")
    assert not out.exists()


def test_a_single_blob_of_a_norm_is_not_left_out_alone(files, tmp_path, capsys):
    file, out = files["caffe"], tmp_path / "out.ckpt"
    assert "bn2a_branch1/2 is missing" in refused(capsys, file, out, "--ignore", "bn2a_branch1/2")
    assert "missing backbone.layer1.0.downsample.1.running_mean" in refused(
        capsys, file, out, "--ignore", "bn2a_branch1"
    )
    ours = [f"backbone.layer1.0.downsample.1.running_{name}" for name in ("mean", "var")]
    convert.main([str(file), str(out), "--ignore", "bn2a_branch1", "--allow_missing", *ours])
    assert "Skipped     3, ignored, as asked: bn2a_branch1/0" in capsys.readouterr().out
    state = read(out)["state_dict"]
    assert state[f"net.{ours[0]}"].tolist() == [0] * 256  # as initialized
    assert state[f"net.{ours[1]}"].tolist() == [1] * 256


def test_a_backbone_may_lack_what_is_named(resnet101, tmp_path, capsys):
    state = torchvision_state(resnet101)
    del state["bn1.bias"]
    file, out = tmp_path / "resnet101COCO-41f33a49.pth", tmp_path / "out.ckpt"
    torch.save(state, file)
    assert "missing bn1.bias" in refused(capsys, file, out)
    convert.main([str(file), str(out), "--allow_missing", "backbone.bn1.bias"])
    assert "Missing     1, initialized at random: backbone.bn1.bias" in capsys.readouterr().out
    assert read(out)["state_dict"]["net.backbone.bn1.bias"].tolist() == [0] * 64


def test_weights_that_were_never_trained_to_segment_are_to_train_from(files, tmp_path, capsys):
    out = tmp_path / "out.ckpt"
    convert.main([str(files["kazuto1011"]), str(out), "--trained_on", "none"])
    shown = capsys.readouterr().out
    assert "Trained on  no segmentation data set" in shown
    assert "Skipped     8, a head, but of weights that were trained on no segmentation" in shown
    assert "python -m deeplab_lit.fit --model.style caffe --model.weights" in shown
    assert read(out)["provenance"]["trained_on"] == []
    with pytest.raises(WeightsError, match="nothing to evaluate"):
        deeplab_lit.load(out)


def test_what_weights_were_trained_on_may_be_unknown_but_not_none_and_something(
    files, tmp_path, capsys
):
    out = tmp_path / "out.ckpt"
    args = ["--trained_on", "unknown", "VOC:train", "--init=unknown"]
    convert.main([str(files["caffe"]), str(out), *args])
    found = read(out)["provenance"]
    assert (found["init"], found["trained_on"]) == ("unknown", ["unknown", "VOC:train"])
    new = tmp_path / "new.ckpt"
    words = "--trained_on none: expected DATA:SPLIT, like VOC:train_aug; or unknown; or none alone"
    assert words in refused(capsys, out, new, "--trained_on", "none", "VOC:train")


def test_names_in_another_encoding_or_in_a_folder_are_refused(files, tmp_path, capsys):
    file, out = files["kazuto1011"], tmp_path / "out.ckpt"
    (tmp_path / "names.txt").write_bytes("vélo\n".encode("latin-1"))
    shown = refused(capsys, file, out, f"--data_classes={tmp_path / 'names.txt'}")
    assert "names.txt is not UTF-8 (line 1 holds the byte 0xe9" in shown
    assert "is a folder" in refused(capsys, file, out, f"--data_classes={tmp_path}")
    assert f"error: {tmp_path} is a folder, expected a weight file" in refused(
        capsys, tmp_path, out
    )


def test_names_in_another_order_than_the_files_own_are_refused(converted, tmp_path, capsys):
    path = next(iter(converted.values()))
    own = list(torch.load(path, weights_only=True)["hyper_parameters"]["classes"])
    (tmp_path / "names.txt").write_text("\n".join([own[1], own[0], *own[2:]]))
    err = refused(
        capsys, str(path), str(tmp_path / "x.ckpt"), f"--data_classes={tmp_path}/names.txt"
    )
    assert f"0: {own[0]} → {own[1]}" in err


def test_validate_stops_where_the_weights_have_seen_the_split(converted, root, tmp_path, capsys):
    content = read(converted["caffe"])
    content["provenance"]["trained_on"] = ["COCO:train", "folder/mine:val"]
    torch.save(content, tmp_path / "seen.ckpt")
    args = [f"--ckpt_path={tmp_path / 'seen.ckpt'}", "--data=Folder", f"--data.root={root}"]
    args += [f"--runs_dir={tmp_path}", "--loader.num_workers=0", "--trainer.accelerator=cpu"]
    args += ["--trainer.enable_progress_bar=false", "--trainer.logger=false"]
    with pytest.raises(SystemExit) as stop:
        validate.main(args)
    assert stop.value.code == 2
    assert "trained on folder/mine:val" in capsys.readouterr().err
    done = validate.main([*args, "--allow_seen_split", "--eval.scales=[1.0]"])
    results = json.loads((done.folder / "results.json").read_text())
    assert results["validation_split_trained_on"] == ["folder/mine:val"]
    assert results["provenance"]["source"] == "train2_iter_20000.caffemodel"


def test_it_is_a_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["deeplab_lit", "convert", "nowhere.pth", str(tmp_path / "o")])
    with pytest.raises(SystemExit) as stop:
        commands()
    assert stop.value.code == 2
    kinds = ".caffemodel, .pth, .ckpt, .safetensors"
    assert capsys.readouterr().err == (
        f"error: nowhere.pth: no such file: expected a weight file ({kinds}); in . there is none\n"
    )


def test_a_converted_file_holds_no_training_to_go_on_with(converted, root, tmp_path, capsys):
    args = [f"--ckpt_path={converted['caffe']}", "--data=Folder", f"--data.root={root}"]
    with pytest.raises(SystemExit) as stop:
        fit.main([*args, f"--runs_dir={tmp_path}", "--trainer.accelerator=cpu"])
    assert stop.value.code == 2
    assert "no training to go on with" in capsys.readouterr().err


def test_last_is_the_best_of_the_newest_run_and_the_next_command_is_quoted(
    trained, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(trained.parents[4])
    out = tmp_path / "my weights.ckpt"
    convert.main(["last", str(out)])
    said = capsys.readouterr().out.splitlines()
    assert "runs/shapes/one/checkpoints/best.ckpt" in said[0]
    words = ["-m", "deeplab_lit.validate", "--ckpt_path", str(out)]
    assert shlex.split(said[-1])[2:6] == words
    theirs, ours = (torch.load(path, weights_only=True)["state_dict"] for path in (trained, out))
    assert all(torch.equal(theirs[key], ours[key]) for key in ours if "num_batches" not in key)


def test_the_list_shows_all_that_has_a_name_and_what_is_here(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    here = tmp_path / "hub/checkpoints/resnet101COCO-41f33a49.pth"
    here.parent.mkdir(parents=True)
    here.touch()
    convert.main(["--list"])
    said = capsys.readouterr().out
    for name, entry in NAMED.items():
        [paragraph] = re.findall(rf"^{name}  .*\n(?:    .*\n)+", said, re.MULTILINE)
        assert entry.url in paragraph
        assert entry.license in paragraph
        assert ("    here " in paragraph) == (name == "advsemiseg/coco")
    assert "mIoU on VOC val 76.65 (its README)" in said
    assert str(here.parent) in said.splitlines()[-1]
    assert "--list converts nothing" in refused(capsys, "--list", "--init=coco")
