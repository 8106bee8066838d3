import pytest
from jsonargparse import Namespace

import deeplab_lit
from deeplab_lit.cli.checks import (
    check_classes,
    check_network,
    check_options,
    check_resumable,
    check_same_lists,
    check_trainer,
    check_training,
    check_unseen,
    images_seen,
    seen_splits,
)
from deeplab_lit.cli.parser import UsageError
from deeplab_lit.data import GTA5, VOC, Cityscapes, Coco, DataError, Folder, Shapes, Synthia
from deeplab_lit.loading import DataModule
from deeplab_lit.network.weights.load import WeightsError
from deeplab_lit.network.weights.published import PUBLISHED
from deeplab_lit.runs.provenance import Provenance

FILE = "some/best.ckpt"


def options_of_fit(**changes):
    options = Namespace({"trainer.max_steps": 5, "trainer.max_epochs": None})
    options.update(
        Namespace({"eval.cache_dir": None, "eval.trimap": None, "checkpoint.dirpath": None})
    )
    none = ("loader.unlabeled_crop_size", "loader.unlabeled_resize", "unlabeled_data")
    options.update(Namespace(dict.fromkeys(none)))
    options.update(Namespace(changes))
    return options


@pytest.mark.parametrize(("steps", "epochs"), [(-1, None), (0, -1)])
def test_a_training_without_an_end_is_refused(steps, epochs):
    options = options_of_fit(**{"trainer.max_steps": steps, "trainer.max_epochs": epochs})
    with pytest.raises(UsageError, match="when training ends"):
        check_training(options)


@pytest.mark.parametrize(("steps", "epochs"), [(10, None), (-1, 3)])
def test_steps_or_epochs_are_an_end(steps, epochs):
    check_training(options_of_fit(**{"trainer.max_steps": steps, "trainer.max_epochs": epochs}))


@pytest.mark.parametrize("change", [{"eval.cache_dir": "x"}, {"eval.trimap": "void"}])
def test_a_training_takes_no_option_of_validate_alone(change):
    with pytest.raises(UsageError, match="is for validate"):
        check_training(options_of_fit(**change))


def test_weights_alone_are_no_training_to_go_on_with():
    check_resumable({"optimizer_states": []}, FILE)
    with pytest.raises(WeightsError, match=f"--model.weights {FILE}"):
        check_resumable({"state_dict": {}}, FILE)


def test_an_option_that_the_checkpoint_overrides_is_refused():
    check_options({"lr": 1.0, "weights": "none"}, {"lr": 1.0, "weights": "imagenet"}, FILE)
    with pytest.raises(WeightsError, match=r"--model.lr is 2.0, but some/best.ckpt .* with 1.0"):
        check_options({"lr": 2.0}, {"lr": 1.0}, FILE)


NAMES = list(Shapes().classes)


def test_the_same_classes_pass_without_a_word(capsys):
    check_classes(NAMES, FILE, Shapes())
    assert capsys.readouterr().out == ""


def test_another_number_of_classes_is_refused_with_the_first_difference():
    with pytest.raises(
        WeightsError, match=r"has 8 classes, .* Shapes has 7 .*; 7: bird → \(none\)"
    ):
        check_classes([*NAMES, "bird"], FILE, Shapes())


@pytest.mark.parametrize("change", [str, str.upper], ids=["same spelling", "other spelling"])
def test_the_same_classes_in_another_order_are_refused_with_the_first_difference(change):
    theirs = [change(name) for name in (*NAMES[:5], NAMES[6], NAMES[5])]
    words = f"5: {theirs[5]} → {NAMES[5]}, 6: {theirs[6]} → {NAMES[6]}"
    with pytest.raises(WeightsError, match=words):
        check_classes(theirs, FILE, Shapes())


def test_a_list_that_is_shifted_by_a_new_class_is_refused():
    with pytest.raises(WeightsError, match=f"another order .* 0: sky → {NAMES[0]}"):
        check_classes(["sky", *NAMES[:6]], FILE, Shapes())


def test_other_names_at_the_same_places_are_told_one_by_one(capsys):
    check_classes([*NAMES[:5], "Kreuz", "Ring"], FILE, Shapes())
    said = capsys.readouterr().out
    assert "WARNING: 2 of the 7 classes" in said
    assert f"5: Kreuz → {NAMES[5]}, 6: Ring → {NAMES[6]}\n" in said
    check_classes("abcdefg", FILE, Shapes())
    assert f"4: e → {NAMES[4]}, and 2 more" in capsys.readouterr().out


def test_classes_that_are_only_numbered_are_taken_by_their_index(capsys):
    check_classes([f"class_{i}" for i in range(7)], FILE, Shapes())
    assert "only numbers its classes" in capsys.readouterr().out


def test_images_that_were_trained_on_are_scored_only_when_that_is_allowed(capsys):
    data, seen = Shapes(val_split="train"), Provenance(trained_on=("Shapes:train",))
    with pytest.raises(WeightsError, match="--allow_seen_split"):
        check_unseen(data, seen, FILE, allowed=False)
    assert check_unseen(data, seen, FILE, allowed=True) == {
        "validation_split_trained_on": ["Shapes:train"]
    }
    assert "WARNING" in capsys.readouterr().out
    assert check_unseen(Shapes(), seen, FILE, allowed=False) == {}
    assert capsys.readouterr().out == ""


def test_images_that_were_trained_on_without_labels_are_scored_and_told(capsys):
    seen = Provenance(trained_on=("GTA5:train",), unlabeled_on=("Shapes:val",))
    found = check_unseen(Shapes(), seen, FILE, allowed=False)
    assert found == {"validation_split_unlabeled": ["Shapes:val"]}
    words = "WARNING: some/best.ckpt was trained on the images of Shapes:val without their labels"
    assert words in capsys.readouterr().out
    assert check_unseen(Shapes(val_split="train"), seen, FILE, allowed=False) == {}


@pytest.mark.parametrize(("init", "told"), [("coco", True), ("imagenet", False)])
def test_a_backbone_from_coco_may_have_seen_the_images_of_coco(init, told, tmp_path, capsys):
    weights = Provenance(trained_on=("VOC:train",), init=init)
    assert check_unseen(Coco(str(tmp_path)), weights, FILE, allowed=False) == {}
    assert ("perhaps on those of Coco:val" in capsys.readouterr().out) == told
    check_unseen(Shapes(), weights, FILE, allowed=False)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("split", "seen"),
    [
        ("train", []),
        ("val", ["Coco:val", "Coco:val_all"]),
        ("val_all", ["Coco:val", "Coco:val_all"]),
    ],
)
def test_all_of_cocos_images_contain_the_annotated_ones(split, seen, tmp_path):
    data = Coco(str(tmp_path), val_split=split)
    assert seen_splits(data, ["Coco:val", "Coco:val_all"]) == seen


def test_a_configuration_of_another_network_than_the_checkpoints_is_refused():
    stored = {"backbone": "resnet18", "scales": (0.5, 1.0), "lr": 1.0}
    check_network({"c": {"model": {"scales": [0.5, 1], "lr": 2.0, "norm": "frozen"}}}, stored)
    check_network({"c": {"data": {}, "model": None}}, stored)
    base, overlay = {"model": {"scales": [1.0]}}, {"model": {"scales": [0.5, 1.0]}}
    check_network({"base.yaml": base, "overlay.yaml": overlay}, stored)  # the later one counts
    with pytest.raises(WeightsError, match=r"base\.yaml: model\.scales"):
        check_network({"overlay.yaml": overlay, "base.yaml": base}, stored)
    for name, value in {"backbone": "vgg16", "scales": [1.0], "norm": "batch"}.items():
        with pytest.raises(WeightsError, match=rf"c.yaml: model.{name} is .* network.* has "):
            check_network({"c.yaml": {"model": {name: value}}}, stored)


def test_that_nothing_is_known_is_told(capsys):
    assert check_unseen(Shapes(), Provenance(), FILE, allowed=False) == {}
    assert "not known which data" in capsys.readouterr().out


@pytest.mark.parametrize("number", [13, 16])
def test_a_network_with_the_outputs_of_a_subset_is_told_that_all_19_are_needed(number):
    names = Cityscapes.subsets[str(number)]
    with pytest.raises(WeightsError, match="mIoU16 and mIoU13 are scored from all 19 outputs"):
        check_classes(names, FILE, Cityscapes)


@pytest.mark.parametrize(
    ("name", "value"), [("unlabeled_crop_size", "whole"), ("unlabeled_resize", (512, 1024))]
)
def test_sizes_of_unlabeled_images_need_some(name, value):
    changes = {f"loader.{name}": value}
    with pytest.raises(UsageError, match=rf"--loader\.{name} is for .* --unlabeled_data"):
        check_training(options_of_fit(**changes))
    check_training(options_of_fit(**changes, unlabeled_data="Images"))


def trainer_options(name, value):
    options = Namespace({"seed_everything": 0, "trainer.accelerator": "cpu"})
    options[name] = value
    return options


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "seed_everything": [-1, 2**32, 10**20],
        "threads": [-1, 0, 10**10],
        "trainer.devices": [-3, -1, 0, "-3", "0", "x", "1.5", 100_000, ""],
        "trainer.accumulate_grad_batches": [0, -1],
        "trainer.log_every_n_steps": [0, -1],
        "trainer.check_val_every_n_epoch": [0, -1],
        "trainer.val_check_interval": [0, -1, 0.0, 1.5, float("nan"), float("inf")],
        "trainer.limit_train_batches": [0, 0.0, float("nan")],
        "trainer.num_sanity_val_steps": [-2],
        "trainer.gradient_clip_val": [-1, float("nan")],
        "trainer.barebones": [True],
        "trainer.max_epochs": [0, -2],
    }.items(),
)
def test_numbers_that_end_in_a_crash_or_never_are_refused(name, values):
    for value in values:
        with pytest.raises(UsageError, match=f"--{name} is .*, expected "):
            check_trainer(trainer_options(name, value))


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "seed_everything": [0, 2**32 - 1, True, False],
        "threads": [None, 1, 64],
        "trainer.devices": ["auto", 1, 2, "2", [0, 1], "0,1", "1,"],
        "trainer.accumulate_grad_batches": [1, 10],
        "trainer.check_val_every_n_epoch": [None, 1],
        "trainer.val_check_interval": [None, 1, 500, 0.25, 1.0, "00:00:10:00"],
        "trainer.limit_train_batches": [None, 1, 0.5],
        "trainer.num_sanity_val_steps": [None, -1, 0],
        "trainer.gradient_clip_val": [None, 0, 1.5],
    }.items(),
)
def test_numbers_that_mean_something_are_taken(name, values):
    for value in values:
        check_trainer(trainer_options(name, value))


def test_a_validation_of_nothing_is_refused_and_a_training_without_one_is_not():
    options = trainer_options("trainer.limit_val_batches", 0)
    check_trainer(options)
    with pytest.raises(UsageError, match="leaves nothing to score"):
        check_trainer(options, validates=True)


@pytest.mark.parametrize(
    ("split", "seen"),
    [
        ("val", ["VOC:val", "VOC:trainval", "VOC:trainval_aug"]),
        ("train", ["VOC:train", "VOC:train_aug", "VOC:trainval", "VOC:trainval_aug"]),
        (
            "trainval",
            ["VOC:train", "VOC:train_aug", "VOC:val", "VOC:trainval", "VOC:trainval_aug"],
        ),
    ],
)
def test_vocs_splits_contain_each_other(voc_root, split, seen):
    """Without SBD's files: the lists of the augmented splits are not here."""
    data = VOC(root=str(voc_root), val_split=split)
    entries = ["VOC:train", "VOC:train_aug", "VOC:val", "VOC:trainval", "VOC:trainval_aug"]
    assert sorted(seen_splits(data, entries)) == sorted(seen)


def test_a_list_of_ones_own_is_compared_by_its_images(voc_root, write_list):
    lists = voc_root / "ImageSets/Segmentation"
    write_list(lists / "few.txt", ["2007_1"])
    write_list(lists / "other.txt", ["2007_1", "2007_4"])
    data = VOC(root=str(voc_root))
    assert seen_splits(data, ["VOC:few", "VOC:other"]) == ["VOC:other"]


def test_capitals_do_not_matter_and_other_data_sets_are_passed_over(voc_root):
    data = VOC(root=str(voc_root))
    assert seen_splits(data, ["voc:val", "Cityscapes:val", "unknown", "VOC:train"]) == ["voc:val"]
    assert seen_splits(data, []) == []


def test_cityscapes_and_shapes_splits_are_disjoint(city_root):
    for data in (Cityscapes(root=str(city_root)), Shapes()):
        name = type(data).__name__
        assert seen_splits(data, [f"{name}:train", f"{name}:val"]) == [f"{name}:val"]


def test_trainval_holds_val(city_root):
    data = Cityscapes(root=str(city_root))
    assert seen_splits(data, ["Cityscapes:trainval"]) == ["Cityscapes:trainval"]


def test_splits_of_the_source_domains_contain_each_other(tmp_path):
    (tmp_path / "RGB").mkdir()
    for data in (GTA5(root=str(tmp_path)), Synthia(root=str(tmp_path))):
        name = type(data).__name__
        entries = [f"{name}:{split}" for split in ("all", "train", "val")]
        assert seen_splits(data, entries) == [f"{name}:all", f"{name}:val"]


def test_coarse_labels_are_of_the_same_images(city_root):
    data = Cityscapes(root=str(city_root))
    coarse = ["train_extra", "train_coarse", "val_coarse", "trainval_coarse"]
    seen = seen_splits(data, [f"Cityscapes:{split}" for split in coarse])
    assert seen == ["Cityscapes:val_coarse", "Cityscapes:trainval_coarse"]


def test_every_published_file_names_data_sets_as_they_call_themselves():
    known = {name for name in dir(deeplab_lit.data) if name[0].isupper()}
    for file in PUBLISHED:
        splits = [*file.trained_on, *([file.quoted.split] if file.quoted else [])]
        assert {entry.rpartition(":")[0] for entry in splits} <= known


def test_folders_of_different_names_are_different_data_sets(folder_root):
    """The same file names stand in each split of a folder, and are other images."""
    data = Folder(root=str(folder_root))
    assert data.label("train") == "Folder/mine:train"
    assert seen_splits(data, ["Folder/mine:train", "Folder/theirs:val"]) == []
    assert seen_splits(data, ["Folder/mine:val"]) == ["Folder/mine:val"]
    assert data.shared(data.training(), data) == 0
    on_val = Folder(root=str(folder_root), train_split="val")
    assert on_val.shared(on_val.training(), data) == 3


@pytest.fixture
def listed(tmp_path):
    """(lines) → the path of a list with them; always the same one."""

    def write(*lines):
        (tmp_path / "92").mkdir(exist_ok=True)
        (tmp_path / "92/labeled.txt").write_text("\n".join(lines))
        return str(tmp_path / "92/labeled.txt")

    return write


def trained(data):
    """What a checkpoint says of where it comes from, after a training on this data."""
    unlabeled = [] if data.unlabeled is None else [data.unlabeled.training_label()]
    before = Provenance(trained_on=("Shapes:val",))
    return before.extended("1", data.train.training_label(), unlabeled=unlabeled)


def test_a_training_does_not_go_on_with_a_list_that_has_changed(listed):
    before = trained(DataModule(Shapes(ids=listed("1", "2"))))
    again = DataModule(Shapes(ids=listed("1", "3")))
    with pytest.raises(DataError, match=r"labeled\.txt is not the list that some/best\.ckpt was"):
        check_same_lists(again, before, FILE)
    before = trained(DataModule(Shapes(), unlabeled=Shapes(all_but=listed("1", "2"))))
    again = DataModule(Shapes(), unlabeled=Shapes(all_but=listed("1", "3")))
    with pytest.raises(DataError, match=r"labeled\.txt is not the list"):
        check_same_lists(again, before, FILE)


def test_a_training_goes_on_with_its_list_or_without_one_in_silence(listed, capsys):
    for arguments in ({"ids": listed("1", "2")}, {"all_but": listed("1")}, {}):
        data = Shapes(**arguments)
        both = DataModule(data, unlabeled=data)
        check_same_lists(both, trained(both), FILE)
    check_same_lists(DataModule(Shapes(ids=listed("1"))), Provenance(), FILE)
    assert capsys.readouterr().out == ""


def test_that_a_training_goes_on_with_other_images_of_its_split_is_said(listed, capsys):
    whole, some = DataModule(Shapes()), DataModule(Shapes(ids=listed("1")))
    check_same_lists(whole, trained(some), FILE)
    assert "was trained on Shapes:train [ids 92/labeled.txt" in capsys.readouterr().out
    check_same_lists(some, trained(whole), FILE)
    assert "goes on with Shapes:train [ids 92/labeled.txt" in capsys.readouterr().out


def test_images_of_a_list_are_known_as_those_of_their_split(voc_root, listed, capsys):
    some = VOC(str(voc_root), ids=listed("2007_1")).training_label()
    val = VOC(str(voc_root), train_split="val", ids=listed("2007_4")).training_label()
    data = VOC(str(voc_root))
    assert seen_splits(data, [some]) == []
    assert seen_splits(data, [some, val]) == [val]
    with pytest.raises(WeightsError, match="was trained on VOC:val"):
        check_unseen(data, Provenance(trained_on=(val,)), FILE, allowed=False)


def test_labeled_images_among_the_unlabeled_ones_are_said(listed, capsys):
    path = listed("1", "2")
    some = Shapes(train_size=8, val_size=1, ids=path)
    images_seen(DataModule(some, unlabeled=Shapes(train_size=8, val_size=1)))
    assert capsys.readouterr().out == "Note: 2 labeled images are among the unlabeled ones too.\n"
    rest = DataModule(some, unlabeled=Shapes(train_size=8, val_size=1, all_but=path))
    assert images_seen(rest) == {}
    assert capsys.readouterr().out == ""
