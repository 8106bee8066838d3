"""What a file says about where its weights come from."""

import hashlib

import pytest

from deeplab_lit.network.weights.formats.source import Source
from deeplab_lit.runs.provenance import Provenance


def source(format="caffe", num_classes=21, backbone="resnet101", **kwargs):
    return Source(format, {}, {"backbone": backbone}, num_classes, **kwargs)


def write(path):
    path.write_bytes(b"weights")
    return path


@pytest.mark.parametrize(
    ("name", "read", "init", "trained_on"),
    [
        ("train_iter_20000.caffemodel", source(), "coco", ["VOC:train_aug"]),
        ("train2_iter_20000.caffemodel", source(), "coco", ["VOC:trainval_aug"]),
        ("train_iter_20000.caffemodel", source(backbone="vgg16"), "imagenet", ["VOC:train_aug"]),
        ("train_iter_20000.caffemodel", source(num_classes=182), "unknown", ["unknown"]),
        ("init.caffemodel", source(num_classes=None), "coco", []),
        ("deeplabv1_resnet101-coco.pth", source("kazuto1011", None), "coco", []),
        ("deeplabv1_resnet101-imagenet.pth", source("kazuto1011", None), "imagenet", []),
        ("deeplabv2_resnet101_msc-vocaug-20000.pth", source("kazuto1011"), "coco",
         ["VOC:train_aug"]),
        ("deeplabv2_resnet101_msc-vocaug.pth", source("kazuto1011"), "coco", ["VOC:trainval_aug"]),
        ("MS_DeepLab_resnet_trained_VOC.pth", source("isht7"), "coco", ["VOC:train_aug"]),
        ("DeepLab_resnet_pretrained_init-f81d91e8.pth", source("isht7"), "unknown", []),
        ("resnet101COCO-41f33a49.pth", source("adaptsegnet", None), "coco", []),
        ("deeplabv2_resnet101_msc-cocostuff10k-20000.pth", source("kazuto1011", 182), "coco",
         ["CocoStuff10k:train"]),
        ("deeplabv2_resnet101_msc-cocostuff164k-100000.pth", source("kazuto1011", 182), "coco",
         ["CocoStuff164k:train"]),
        ("resnet101-63fe2227.pth", source("torchvision", None), "imagenet", []),
        ("resnet101-5d3b4d8f.pth", source("torchvision", None), "imagenet", []),
        ("vgg16-397923af.pth", source("torchvision", None, "vgg16"), "imagenet", []),
        ("vgg16-00b39a1b.pth", source("torchvision", None, "vgg16"), "unknown", ["unknown"]),
        ("vgg16_20M.caffemodel", source("caffe", None, "vgg16"), "imagenet", []),
        ("mine.pth", source("kazuto1011"), "unknown", ["unknown"]),
    ],
)  # fmt: skip
def test_published_files_are_known_by_their_names(tmp_path, name, read, init, trained_on):
    found = Provenance.from_file(write(tmp_path / name), read)
    assert (found.init, list(found.trained_on)) == (init, trained_on)
    assert found.source == name
    assert found.sha256 == hashlib.sha256(b"weights").hexdigest()
    assert found.origin is None


@pytest.mark.parametrize(
    ("name", "outputs", "init", "about"),
    [
        ("deeplabv1_resnet101-coco.pth", 91, "coco", "91 outputs, MS-COCO's number"),
        ("deeplabv1_resnet101-imagenet.pth", 1000, "imagenet", "1000 outputs, ImageNet's number"),
        ("mine.pth", 91, "coco", "91 outputs, MS-COCO's number"),
        ("mine.pth", 10, "unknown", "neither its name nor its content tells"),
        ("DeepLab_resnet_pretrained_init-f81d91e8.pth", None, "unknown", "disputed: MS-COCO"),
    ],
)
def test_what_a_file_was_first_trained_on_is_seen_from_its_classifier_too(
    tmp_path, name, outputs, init, about, recwarn
):
    read = source("kazuto1011", None, pretraining_classes=outputs)
    found = Provenance.from_file(write(tmp_path / name), read)
    assert found.init == init
    assert about in found.about
    assert found.as_dict()["about"] == found.about
    assert not recwarn


@pytest.mark.parametrize(
    ("name", "outputs", "init", "titles"),
    [
        ("deeplabv1_resnet101-imagenet.pth", 91, "coco", ("ImageNet", "MS-COCO")),
        ("my_ImageNet_init.pth", 91, "coco", ("ImageNet", "MS-COCO")),
        ("deeplabv1_resnet101-coco.pth", 1000, "imagenet", ("MS-COCO", "ImageNet")),
    ],
)
def test_a_name_that_its_content_contradicts_is_not_believed_and_that_is_said(
    tmp_path, name, outputs, init, titles
):
    path = write(tmp_path / name)
    read = source("kazuto1011", None, pretraining_classes=outputs)
    words = f"its name says {titles[0]}.* has {outputs} outputs, {titles[1]}'s number: .*--init"
    with pytest.warns(UserWarning, match=words):
        found = Provenance.from_file(path, read)
    assert found.init == init


def test_what_a_user_says_of_a_file_counts_most(tmp_path, recwarn):
    path = write(tmp_path / "deeplabv1_resnet101-imagenet.pth")
    read = source("kazuto1011", None, pretraining_classes=91)
    found = Provenance.from_file(path, read, "imagenet")
    assert (found.init, found.about, found.trained_on) == (
        "imagenet",
        "by hand: convert --init",
        (),
    )
    ours = source("deeplab_lit", provenance=found.extended("0.1").as_dict())
    again = Provenance.from_file(write(tmp_path / "new.ckpt"), ours)
    assert (again.init, again.about) == ("imagenet", "by hand: convert --init")
    assert again.origin["source"] == "deeplabv1_resnet101-imagenet.pth"
    assert not recwarn


def test_a_file_of_ours_hands_its_past_on(tmp_path):
    before = {"source": "init.caffemodel", "init": "coco", "trained_on": ["VOC:train_aug"]}
    path = write(tmp_path / "train2_iter_20000.caffemodel")  # its name no longer counts
    found = Provenance.from_file(path, source("deeplab_lit", provenance=before))
    assert found.init == "coco"
    assert found.trained_on == ("VOC:train_aug",)
    assert found.origin == before
    done = found.extended("0.1", "Folder/x:train").as_dict()
    assert done["trained_on"] == ["VOC:train_aug", "Folder/x:train"]
    assert done["version"] == "0.1"
    assert before["trained_on"] == ["VOC:train_aug"]


def test_a_split_is_named_once_however_often_a_run_goes_on():
    first = Provenance.from_weights("none", None).extended("0.1", "VOC:train").as_dict()
    again = Provenance.from_checkpoint({"provenance": first}).extended("0.1", "VOC:train").as_dict()
    assert again["trained_on"] == ["VOC:train"]
    assert again["init"] == "none"


def test_command_lines_that_earlier_versions_kept_are_dropped(tmp_path):
    older = {"source": None, "trained_on": ["VOC:train"], "init": "coco", "command": "fit --key=1"}
    old = older | {"origin": older | {"origin": None}}
    file = write(tmp_path / "a.ckpt")
    read = source("deeplab_lit", provenance=old)
    again = Provenance.from_checkpoint({"provenance": old})
    for found in (again, Provenance.from_file(file, read)):
        assert "key" not in str(found.as_dict())
        assert found.trained_on == ("VOC:train",)
    assert again.origin["init"] == "coco"


def test_of_a_checkpoint_without_provenance_nothing_is_known():
    for given in ({}, {"provenance": None}, {"provenance": {"source": "x"}}):
        found = Provenance.from_checkpoint({"state_dict": {}} | given)
        assert (found.init, found.trained_on) == ("unknown", ("unknown",))


def test_imagenet_weights_are_named_by_their_file(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.hub._hub_dir", str(tmp_path))
    read = source("torchvision", None)
    found = Provenance.from_weights("imagenet", read)
    assert (found.source, found.init) == ("resnet101-63fe2227.pth", "imagenet")
    assert found.sha256 is None
    (tmp_path / "checkpoints").mkdir()
    write(tmp_path / "checkpoints/resnet101-63fe2227.pth")
    assert (
        Provenance.from_weights("imagenet", read).sha256 == hashlib.sha256(b"weights").hexdigest()
    )


def test_images_without_labels_are_handed_on_beside_the_splits_with_them(tmp_path):
    first = Provenance(trained_on=()).extended("0.1", "GTA5:train", unlabeled=["Cityscapes:val"])
    entries = first.as_dict()
    assert (entries["trained_on"], entries["unlabeled_on"]) == (["GTA5:train"], ["Cityscapes:val"])
    assert Provenance.from_checkpoint({"provenance": entries}) == first
    path = write(tmp_path / "best.ckpt")
    again = Provenance.from_file(path, source("deeplab_lit", provenance=entries)).extended("0.2")
    assert again.unlabeled_on == ("Cityscapes:val",)
    assert Provenance.from_checkpoint({"provenance": {"trained_on": []}}).unlabeled_on == ()


def test_a_list_of_images_is_kept_with_its_whole_hash_and_said_with_a_part_of_it():
    entry = f"VOC:train_aug [ids 92/labeled.txt, SHA-256 {64 * 'a'}]"
    provenance = Provenance(trained_on=()).extended("1", entry, unlabeled=["Images:train"])
    assert Provenance.from_checkpoint({"provenance": provenance.as_dict()}).trained_on == (entry,)
    assert provenance.in_words() == (
        "VOC:train_aug [ids 92/labeled.txt, SHA-256 aaaaaaaa…], images of Images:train without "
        "their labels"
    )
