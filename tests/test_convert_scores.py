"""`convert`, then `validate`: the score of every format is that of its source network.

The source networks are written a second time in network/weights/formats/source_networks.py, and
mIoU is counted here pixel by pixel. Images have 32k + 1 pixels, where the authors' multi-scale
network exists; isht7's exists for squares only. torchvision's classifiers have no segmentation
head, so that there is no score of theirs to agree with: `validate` says so.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import source_networks as theirs
import torch
import torchvision
from caffe_writer import write_caffemodel
from layouts import caffe_layers, conv2d_list, kazuto1011_state, torchvision_state
from PIL import Image

from deeplab_lit import convert, export, validate

REAL = Path(__file__).parents[1].parent / "shared/data/VOCdevkit/VOC2012"
SIZES = {"oblong": [(33, 97), (65, 33)], "square": [(33, 33), (65, 65)]}
SCALES = {True: (1.0, 0.75, 0.5), False: (1.0,)}
VOID = 255
pytestmark = pytest.mark.usefixtures("undrawn")


class Case(NamedTuple):
    """A format: how its files are written, and what its network says of an image."""

    weights: str  # name of a fixture's entry
    write: object  # (weights, folder) → file
    network: object  # (weights, images, multi_scale) → logits on its grid
    has_scales: bool = True  # the file's own: three or one; the others by --eval.scales
    options: tuple = ()  # of convert
    positions: object = theirs.aligned
    split: str = "oblong"


def saved(state, folder, name):
    torch.save(state, folder / name)
    return folder / name


def write_caffe(net, folder):
    return write_caffemodel(folder / "net.caffemodel", caffe_layers(net))


def write_isht7(net, folder):
    state = torchvision_state(net, prefix="Scale.") | conv2d_list("Scale.layer5", net["head"])
    return saved(state, folder, "net.pth")


def write_adaptsegnet(net, folder):
    state = torchvision_state(net, counters=True)
    state |= conv2d_list("layer5", theirs.random_head(21, 1024))
    return saved(state | conv2d_list("layer6", net["head"]), folder, "net.pth")


def write_own(net, folder):
    settings = {"backbone": "resnet10_quarter", "norm": "batch", "atrous_rates": [2, 4]}
    settings |= {"scales": [1.0, 0.75, 0.5], "lr": 0.1}
    settings["classes"] = {f"class {i}": [i, i, i] for i in range(21)}
    content = {"state_dict": {f"net.{name}": value for name, value in net.items()}}
    content |= {"hyper_parameters": settings, "global_step": 4, "epoch": 1}
    content["pytorch-lightning_version"] = "2.6.0"
    return saved(content, folder, "net.ckpt")


def write_exported(net, folder):
    out = folder / "net.safetensors"
    export.main([f"--ckpt_path={write_own(net, folder)}", f"--out={out}"])
    return out


def isht7(net, images, *, multi_scale):
    return theirs.isht7(net, images) if multi_scale else theirs.caffe_resnet101(
        net, images, multi_scale=False
    )  # fmt: skip


def adaptsegnet(net, images, *, multi_scale):
    return theirs.adaptsegnet(net, images, branches=2, multi_scale=multi_scale)


CASES = {
    "caffe resnet101": Case("resnet101", write_caffe, theirs.caffe_resnet101),
    "kazuto1011": Case(
        "resnet101",
        lambda net, folder: saved(kazuto1011_state(net), folder, "net.pth"),
        theirs.kazuto1011,
        positions=theirs.half_pixel,
    ),
    "isht7": Case("resnet101", write_isht7, isht7, split="square"),
    "adaptsegnet": Case("resnet101", write_adaptsegnet, adaptsegnet, False, ("--branches=2",)),
    "caffe vgg16 aspp": Case(
        "aspp",
        lambda net, folder: write_caffemodel(folder / "net.caffemodel", net),
        theirs.caffe_vgg16,
        False,
    ),
    "caffe vgg16 largefov": Case(
        "largefov",
        lambda net, folder: write_caffemodel(folder / "net.caffemodel", net),
        theirs.caffe_vgg16,
        False,
    ),
    "own checkpoint": Case("own", write_own, theirs.own_network),
    "exported safetensors": Case("own", write_exported, theirs.own_network),
}


@pytest.fixture(scope="module")
@torch.inference_mode()
def networks():
    """Random weights whose classes all have the same mean logit: so many of them are predicted."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        nets = {
            "resnet101": theirs.random_resnet101(),
            "aspp": theirs.random_vgg16(branches=4),
            "largefov": theirs.random_vgg16(branches=1),
            "own": theirs.random_own(),
        }
        image = torch.randint(0, 256, (1, 3, 5, 6)).float()
    image = torch.nn.functional.interpolate(image, (65, 97), mode="bicubic").clamp(0, 255).byte()
    for case, bias in (
        ("caffe resnet101", nets["resnet101"]["head"][0][1]),
        ("caffe vgg16 aspp", nets["aspp"]["fc8_voc12_1"][1]),
        ("caffe vgg16 largefov", nets["largefov"]["fc8_voc12"][1]),
        ("own checkpoint", nets["own"]["head.branches.0.bias"]),
    ):
        bias -= predictor(CASES[case], nets, multi_scale=False)(image).mean(dim=(0, 2, 3))
    return nets


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Images with random masks of 21 classes, and void; oblong ones and squares."""
    root, rng = tmp_path_factory.mktemp("data") / "mine", np.random.default_rng(0)
    for split, sizes in SIZES.items():
        for folder in ("images", "labels"):
            (root / folder / split).mkdir(parents=True)
        for i, size in enumerate(sizes):
            coarse = rng.integers(0, 256, (5, 6, 3), np.uint8)
            Image.fromarray(coarse).resize(size[::-1]).save(root / f"images/{split}/{i}.png")
            mask = Image.fromarray(rng.choice([*range(21), VOID], (8, 9)).astype(np.uint8))
            mask.resize(size[::-1], Image.NEAREST).save(root / f"labels/{split}/{i}.png")
    (root / "classes.txt").write_text("\n".join(f"class {i}" for i in range(21)))
    return root


def slow_counts(pairs, predict):
    """(21,21): pixels of each true class (row) taken for each class; void is not counted.

    pairs: files of image and mask; predict: (1,3,H,W) uint8 → logits (1,C,H,W).
    """
    counts = np.zeros((21, 21), np.int64)
    for image, mask in pairs:
        pixels = torch.from_numpy(np.array(Image.open(image).convert("RGB")))
        labels = predict(pixels.permute(2, 0, 1)[None]).argmax(1)[0].numpy()
        truth = np.asarray(Image.open(mask))
        np.add.at(counts, (truth[truth != VOID], labels[truth != VOID]), 1)
    return counts


def slow_scores(counts):
    hits, true, guessed = counts.diagonal(), counts.sum(1), counts.sum(0)
    ious = [h / (t + g - h) for h, t, g in zip(hits, true, guessed, strict=True) if t + g]
    return {"miou": np.mean(ious), "pixel_accuracy": hits.sum() / counts.sum()}


def check(done, counts):
    """The command's scores, and the matrix behind them but for a few ties."""
    expected = slow_scores(counts)
    found = {name: done.record.final[name] for name in expected}
    assert found == pytest.approx(expected, abs=1e-4)
    different = np.abs(done.module.scores.confusion.numpy() - counts).sum() / 2
    assert different <= counts.sum() / 5000


def predictor(case, networks, *, multi_scale):
    def predict(images):
        logits = case.network(networks[case.weights], images, multi_scale=multi_scale)
        return theirs.interpolate(logits, images.shape[-2:], case.positions)

    return predict


def scores_of(checkpoint, root, split, runs, data="Folder", *options):
    """What `validate` has run, with its scores."""
    args = [f"--ckpt_path={checkpoint}", f"--data={data}", f"--data.root={root}"]
    args += [f"--data.val_split={split}", f"--runs_dir={runs}", "--loader.num_workers=0"]
    args += ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
    return validate.main([*args, "--trainer.logger=false", *options])


@pytest.mark.parametrize("case", CASES.values(), ids=list(CASES))
@torch.inference_mode()
def test_validate_scores_the_converted_file_as_its_source_network(case, networks, root, tmp_path):
    """With and without multi-scale inputs; the second time by the same objects, to save time."""
    file = case.write(networks[case.weights], tmp_path)
    checkpoint = tmp_path / "converted.ckpt"
    convert.main([str(file), str(checkpoint), *case.options])
    names = [f"{case.split}/{i}.png" for i in range(len(SIZES[case.split]))]
    pairs = [(root / "images" / name, root / "labels" / name) for name in names]
    done = scores_of(checkpoint, root, case.split, tmp_path)
    assert done.module.net.scales == SCALES[case.has_scales]
    counts = []
    for multi_scale in (case.has_scales, not case.has_scales):
        if multi_scale != case.has_scales:
            done.module.evaluation.scales = SCALES[multi_scale]
            done.trainer.validate(done.module, done.datamodule)
        counts.append(slow_counts(pairs, predictor(case, networks, multi_scale=multi_scale)))
        check(done, counts[-1])
    assert np.abs(counts[0] - counts[1]).sum() > counts[0].sum() / 20  # the scales do count


def test_of_a_classifier_without_head_validate_says_that_there_is_nothing_to_score(
    root, tmp_path, capsys
):
    torch.save(torchvision.models.resnet18(weights=None).state_dict(), tmp_path / "resnet18.pth")
    convert.main([str(tmp_path / "resnet18.pth"), str(tmp_path / "converted.ckpt")])
    assert "fit --model.style torchvision --model.weights" in capsys.readouterr().out
    with pytest.raises(SystemExit) as stop:
        scores_of(tmp_path / "converted.ckpt", root, "square", tmp_path)
    assert stop.value.code == 2
    assert "without a segmentation head: there is nothing to evaluate" in capsys.readouterr().err


@torch.inference_mode()
def test_validate_scores_real_photographs_as_the_source_network(networks, tmp_path):
    """Eight of VOC val, of several sizes, by a small network at a single scale."""
    if not REAL.is_dir():
        pytest.skip("the real data is not here: VOCdevkit")
    devkit = tmp_path / "VOC2012"
    (devkit / "ImageSets/Segmentation").mkdir(parents=True)
    for name in ("JPEGImages", "SegmentationClass"):
        (devkit / name).symlink_to(REAL / name)
    ids = (REAL / "ImageSets/Segmentation/val.txt").read_text().split()[::6]
    (devkit / "ImageSets/Segmentation/val.txt").write_text("\n".join(ids))
    checkpoint = tmp_path / "converted.ckpt"
    convert.main([str(write_own(networks["own"], tmp_path)), str(checkpoint)])
    done = scores_of(checkpoint, tmp_path, "val", tmp_path, "VOC", "--eval.scales=[1.0]")
    assert done.record.final["miou"] > 0
    pairs = [(REAL / f"JPEGImages/{id}.jpg", REAL / f"SegmentationClass/{id}.png") for id in ids]
    check(done, slow_counts(pairs, predictor(CASES["own checkpoint"], networks, multi_scale=False)))
