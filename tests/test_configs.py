"""Every shipped configuration is parsed, instantiated, and held against what its header claims."""

import re
from functools import cache
from inspect import signature
from pathlib import Path

import pytest
import torch
import yaml

from deeplab_lit import fit
from deeplab_lit.data import (
    GTA5,
    VOC,
    Cityscapes,
    Coco,
    Folder,
    PascalContext,
    PersonPart,
    Shapes,
    Synthia,
)
from deeplab_lit.network.head import ASPP

CONFIGS = Path(fit.__file__).parents[1] / "configs"
BASES = sorted(CONFIGS.glob("*.yaml"))
OVERLAYS = sorted(CONFIGS.glob("table*/*.yaml"))
WEAK = sorted(CONFIGS.glob("weak/*.yaml"))
ADAPTATION = CONFIGS / "adaptation"
TOYS = sorted(ADAPTATION.glob("shapes*.yaml"))
STREETS = sorted(path for path in ADAPTATION.rglob("*.yaml") if path not in TOYS)

# rates, scales of the network and of the augmentation, lr, crop: from the papers' texts and the
# released solvers, not from the files
AUG, MSC = (0.5, 0.75, 1, 1.25, 1.5), (1, 0.75, 0.5)
PAPER = {
    "voc_resnet101": ((6, 12, 18, 24), MSC, AUG, 2.5e-4, 321),
    "voc_vgg16_largefov": ((12,), (1,), (1,), 1e-3, 321),
    "voc_vgg16_aspp": ((6, 12, 18, 24), (1,), (1,), 1e-3, 321),
    "context_resnet101": ((6, 12, 18, 24), MSC, AUG, 2.5e-4, 321),
    "person_part_resnet101": ((1,), MSC, (1,), 2.5e-4, 321),
    "cityscapes_resnet101": ((6, 12, 18, 24), (1,), AUG, 2.5e-4, 769),
}
# learnable weights: of ResNet-101 42,500,160 less its 105,344 of frozen normalization, and of its
# head 2048·9·C + C a rate, or 2048·C + C; of VGG-16 the paper's 20.5 M, and its ASPP
PARAMETERS = {
    "voc_resnet101": 42_394_816 + 1_548_372,
    "voc_vgg16_largefov": 20_505_429,
    "voc_vgg16_aspp": 37_877_652,
    "context_resnet101": 42_394_816 + 4_423_920,
    "person_part_resnet101": 42_394_816 + 14_343,
    "cityscapes_resnet101": 42_394_816 + 1_400_908,
}
DATA = {
    "voc": (VOC, 21),
    "context": (PascalContext, 60),
    "person": (PersonPart, 7),
    "cityscapes": (Cityscapes, 19),
    "coco2014": (Coco, 81),
    "gta5": (GTA5, 19),
    "synthia": (Synthia, 19),
    "shapes": (Shapes, 7),
    "camvid": (Folder, 11),
}
# Tables 2, 3, 4, 6, 7, 9: mIoU before and after the CRF, learnable weights
ROWS = {
    "table2/step_30_6k": (62.25, 67.64, 20_505_429),
    "table2/poly_30_6k": (63.42, None, 20_505_429),
    "table2/poly_30_10k": (64.90, None, 20_505_429),
    "table2/poly_10_10k": (64.71, None, 20_505_429),
    "table3/aspp_s": (66.98, 69.73, 37_877_652),
    "table4/plain": (68.72, None, 42_394_816 + 43_029),
    "table4/msc": (71.27, None, 42_394_816 + 43_029),
    "table4/msc_coco": (73.28, None, 42_394_816 + 43_029),
    "table4/msc_coco_aug": (74.87, None, 42_394_816 + 43_029),
    "table4/msc_coco_aug_largefov": (75.54, None, 42_394_816 + 387_093),
    "table4/msc_coco_aug_aspp": (76.35, 77.69, 42_394_816 + 1_548_372),
    "table6/vgg16_largefov": (37.6, 39.6, 20_545_404),
    "table6/plain": (39.6, None, 42_394_816 + 122_940),
    "table6/msc": (41.4, None, 42_394_816 + 122_940),
    "table6/msc_coco": (42.9, None, 42_394_816 + 122_940),
    "table6/msc_coco_aug_largefov": (43.5, None, 42_394_816 + 1_105_980),
    "table6/msc_coco_aug_aspp": (44.7, 45.7, 42_394_816 + 4_423_920),
    "table7/plain": (58.90, None, 42_394_816 + 14_343),
    "table7/msc_coco": (64.40, 64.94, 42_394_816 + 14_343),
    "table7/msc_coco_largefov": (62.18, None, 42_394_816 + 129_031),
    "table7/msc_coco_aspp": (62.76, None, 42_394_816 + 516_124),
    "table9/vgg16_half": (62.97, 64.18, 20_503_379),
    "table9/vgg16_full": (64.89, 65.94, 20_503_379),
    "table9/resnet101_full": (66.6, None, 42_394_816 + 38_931),
    "table9/resnet101_largefov": (69.2, None, 42_394_816 + 350_227),
    "table9/resnet101_aspp": (70.4, None, 42_394_816 + 1_400_908),
}


# domain adaptation: size that training frames are brought to (height, width)
FRAMES = {
    "gta5_to_cityscapes": (720, 1280),
    "synthia_to_cityscapes": None,  # 760×1280 as they are
    "cityscapes_oracle": (512, 1024),
}


@pytest.fixture(scope="module")
def build(tmp_path_factory, build_fit):
    """The run of configurations, with everything built and nothing run."""
    root = tmp_path_factory.mktemp("data")
    for year in (2010, 2012):
        (root / f"VOCdevkit/VOC{year}/JPEGImages").mkdir(parents=True)
    (root / "RGB").mkdir()
    (root / "classes.txt").write_text("\n".join(f"class {i}" for i in range(12)))

    @cache
    def run(*paths):
        sections = {key for path in paths for key in yaml.safe_load(path.read_text("utf-8"))}
        sets = sections & {"data", "val_data", "unlabeled_data"}
        data = (
            [] if paths[0].stem.startswith("shapes") else [f"--{name}.root={root}" for name in sets]
        )
        configs = [f"--config={path}" for path in paths]
        with torch.device("meta"):  # weights without memory
            return build_fit([*configs, *data, "--trainer.accelerator=cpu"])

    return run


def name_of(path):
    return path.stem if path.parent == CONFIGS else f"{path.parent.name}/{path.stem}"


def header(path):
    """The comment at the top, on one line."""
    lines = [line[1:].strip() for line in path.read_text("utf-8").splitlines() if line[:1] == "#"]
    return " ".join(lines)


def base_of(path):
    return CONFIGS.parent / re.search(r" base: (configs/\w+\.yaml) ", header(path))[1]


def options(built):
    """The parsed configuration by the names of the options on the command line."""
    flat = vars(built.options.as_flat())
    flat = {key.replace("data.init_args.", "data."): value for key, value in flat.items()}
    return {key: value for key, value in flat.items() if key not in ("config", "experiment")}


def images_a_step(built):
    return built.datamodule.batch_size * built.trainer.accumulate_grad_batches


def check_run(built):
    """What holds for every configuration."""
    data, trainer = built.datamodule, built.trainer
    assert list(built.module.hparams.classes) == list(data.classes)
    assert built.module.net.num_classes == len(data.classes)
    assert images_a_step(built) == data.total_batch_size
    assert trainer.max_steps > 0
    batches = trainer.max_steps * trainer.accumulate_grad_batches
    assert batches % trainer.val_check_interval == 0  # the last step is validated


def learnable(built):
    return sum(p.numel() for p in built.module.parameters())


@pytest.mark.parametrize("path", BASES, ids=name_of)
def test_a_config_builds_what_it_says(path, build):
    built = build(path)
    model, data, trainer = built.module, built.datamodule, built.trainer
    name = path.stem
    cls, num_classes = DATA[name.split("_")[0]]
    assert isinstance(data.train, cls)
    assert len(data.classes) == num_classes
    assert built.folder.parent.name == name
    check_run(built)
    if name in PAPER:
        rates, scales, augmentation, lr, crop = PAPER[name]
        assert isinstance(model.net.head, ASPP)
        first = [getattr(branch, "fc6", branch) for branch in model.net.head.branches]
        assert [conv.dilation for conv in first] == [(rate, rate) for rate in rates]
        assert model.net.scales == scales
        assert tuple(data.transform.scales) == augmentation
        assert (data.transform.crop_size, model.hparams.lr) == (crop, lr)
        assert (model.hparams.momentum, model.hparams.weight_decay) == (0.9, 5e-4)
        assert (model.hparams.lr_policy, model.hparams.poly_power) == ("poly", 0.9)
        assert model.hparams.head_lr_mult == 10
        assert trainer.max_steps == (40_000 if name.startswith("cityscapes") else 20_000)
        assert images_a_step(built) == 10
        assert learnable(built) == PARAMETERS[name]


@pytest.mark.parametrize("path", BASES, ids=name_of)
def test_a_config_says_what_it_claims_and_how_to_run_it(path):
    text = header(path)
    assert (
        f"python -m deeplab_lit.fit --config configs/{path.name}" in text or path.stem == "shapes"
    )
    assert "python -m deeplab_lit.fit" in text
    if path.stem in PAPER:
        assert "Table" in text
        assert "mIoU" in text
        assert "Not measured by this project" in text
    assert yaml.safe_load(path.read_text("utf-8"))["experiment"] == path.stem
    for overlay in re.findall(r"configs/((?:table|adaptation)\w*/\w*)", text):
        assert list(CONFIGS.glob(f"{overlay}*")), overlay


def test_every_row_of_the_tables_has_an_overlay_or_is_a_base():
    assert {name_of(path) for path in OVERLAYS} == ROWS.keys()
    others = {"shapes", "shapes_ablations", "camvid", "camvid_vgg16", "coco2014_resnet101", *FRAMES}
    assert PAPER.keys() == {path.stem for path in BASES} - others


def test_coco_2014_is_trained_as_lpcam_says(build):
    """Its issue 3, on kazuto1011's code."""
    path = CONFIGS / "coco2014_resnet101.yaml"
    built = build(path)
    model, data, settings = built.module, built.datamodule, built.module.hparams
    assert (data.train.train_split, data.val.val_split) == ("train", "val")
    assert (images_a_step(built), built.trainer.max_steps) == (20, 100_000)
    assert (settings.lr, settings.head_lr_mult, settings.momentum) == (2e-4, 10, 0.9)
    assert (settings.weight_decay, settings.lr_policy, settings.poly_power) == (5e-4, "poly", 0.9)
    assert (data.transform.crop_size, tuple(data.transform.scales)) == (321, AUG)
    assert model.net.scales == MSC
    assert learnable(built) == 42_394_816 + 4 * (2048 * 9 * 81 + 81)
    text = header(path)
    assert "Quoted" in text
    assert "Not measured by this project" in text


@pytest.mark.parametrize("path", [*OVERLAYS, *WEAK], ids=name_of)
def test_an_overlay_differs_from_its_base_by_exactly_what_it_says(path, build):
    base, built = (options(build(*paths)) for paths in ((base_of(path),), (base_of(path), path)))
    changed = {key for key in base.keys() | built.keys() if base.get(key) != built.get(key)}
    changed = {re.sub(r"^(model\.loss)\..*", r"\1", key) for key in changed}
    said = re.search(r" changes: (.*?)  ", header(path))[1].split(", ")
    assert len(said) == len(set(said))
    assert changed == set(said)
    code = [line for line in path.read_text("utf-8").splitlines() if line[:1] != "#"]
    assert 2 <= len(code) <= 6


@pytest.mark.parametrize(
    ("name", "steps", "batch", "lr", "scales", "loss", "init"),
    [  # AdvCAM, issue 9; kazuto1011, configs/voc12.yaml; LPCAM, issue 3
        ("voc_imagenet", 30_000, 10, 2.5e-4, (*AUG, 1.75, 2), "Balanced", "imagenet"),
        ("voc_coco", 20_000, 10, 2.5e-4, AUG, "NoneType", "coco"),
        ("coco2014", 100_000, 20, 2e-4, AUG, "NoneType", "imagenet"),
    ],
)
def test_a_second_stage_is_trained_as_its_source_says(
    name, steps, batch, lr, scales, loss, init, build
):
    path = CONFIGS / f"weak/{name}.yaml"
    built = build(base_of(path), path)
    check_run(built)
    settings, data = built.module.hparams, built.datamodule
    assert built.folder.parent.name == f"weak_{name}"
    assert (built.trainer.max_steps, images_a_step(built)) == (steps, batch)
    assert (settings.lr, data.transform.crop_size) == (lr, 321)
    assert tuple(data.transform.scales) == scales
    assert type(built.module.loss).__name__ == loss
    files = {"imagenet": "deeplabv1_resnet101-imagenet.pth", "coco": "deeplab/resnet101_coco"}
    assert (settings.weights, settings.style) == (files[init], "caffe")
    assert built.module.net.scales == MSC
    text = header(path)
    assert f" Schedule: poly, lr {lr * 1e4:g}e-4, {steps:,} steps of {batch} images" in text
    assert all(words in text for words in ("Quoted mIoU on val", "Not measured by this project"))
    base = base_of(path).relative_to(CONFIGS.parent)
    command = f"python -m deeplab_lit.fit --config {base} \\ --config configs/weak/{name}.yaml"
    assert f"{command} --data.root " in text
    assert "--data.mask_dir MASKS" in text


def test_every_second_stage_is_held_to_its_source_and_listed():
    assert {path.stem for path in WEAK} == {"voc_imagenet", "voc_coco", "coco2014"}
    (row,) = re.findall(
        r"^\| `weak/` \|(.*)$", (CONFIGS / "README.md").read_text("utf-8"), re.MULTILINE
    )
    assert all(f"`{path.stem}`" in row for path in WEAK)


@pytest.mark.parametrize("path", OVERLAYS, ids=name_of)
def test_an_overlay_is_a_row_of_the_paper(path, build):
    before, after, parameters = ROWS[name_of(path)]
    text = header(path)
    table = path.parent.name.removeprefix("table")
    assert re.search(rf"The paper: Table {table}, .*: {before}0? mIoU on val before the CRF", text)
    assert (f", {after} after" if after else ", none after") in text
    assert all(f" {part}: " in text for part in ("Init", "Schedule", "Departures"))
    assert "Not measured by this project" in text
    base = base_of(path).relative_to(CONFIGS.parent)
    command = f"python -m deeplab_lit.fit --config {base} \\ --config configs/{name_of(path)}.yaml"
    assert f"{command} --data.root " in text
    built = build(base_of(path), path)
    assert built.folder.parent.name == name_of(path).replace("/", "_")
    check_run(built)
    assert learnable(built) == parameters
    steps, batch = f"{built.trainer.max_steps:,} steps", f"of {images_a_step(built)} images"
    assert re.search(rf" Schedule: {built.module.hparams.lr_policy}, lr .*{steps} {batch}\.", text)


@pytest.mark.parametrize("path", OVERLAYS, ids=name_of)
def test_a_name_in_the_tables_is_a_setting(path, build):
    """Ticks of the tables: MSC, COCO, Aug, LargeFOV, ASPP."""
    words = set(path.stem.split("_"))
    built = build(base_of(path), path)
    model, data = built.module, built.datamodule
    rates = {"aspp": 4, "largefov": 1}
    if path.parent.name in ("table4", "table6", "table7") and "vgg16" not in words:
        assert model.net.scales == (MSC if "msc" in words else (1,))
        assert tuple(data.transform.scales) == (AUG if "aug" in words else (1,))
        start = "deeplab/resnet101_coco", "caffe"
        start = start if "coco" in words else ("imagenet", "torchvision")
        assert (model.hparams.weights, model.net.style) == start
        head = next((word for word in rates if word in words), "conv1x1")
        assert model.hparams.head == head
        assert len(model.hparams.atrous_rates) == rates.get(head, 0)
    elif path.parent.name == "table9":
        assert model.net.scales == (1,)  # the paper: no MSC, for want of memory
        size = 0.5 if "half" in words else 1
        assert tuple(data.transform.scales) == (size,)
        assert model.evaluation.scales == ((0.5,) if "half" in words else None)
    elif path.parent.name == "table2":
        policy, batch, steps = path.stem.split("_")
        assert model.hparams.lr_policy == policy
        assert images_a_step(built) == int(batch)
        assert built.trainer.max_steps == int(steps.removesuffix("k")) * 1000
        if policy == "step":
            assert (model.hparams.step_size, model.hparams.step_factor) == (2000, 0.1)


def test_the_toy_of_adaptation_scores_plain_shapes_whatever_it_trains_on(build):
    source = build(ADAPTATION / "shapes.yaml")
    oracle = build(ADAPTATION / "shapes.yaml", ADAPTATION / "shapes_oracle.yaml")
    for built, style in ((source, "night"), (oracle, "plain")):
        check_run(built)
        assert built.datamodule.train.style == style
        assert built.datamodule.val.style == "plain"
        assert built.datamodule.unlabeled is None
        assert built.datamodule.trained_in_validation() == 0
    assert oracle.folder.parent.name == "shapes_oracle"
    one, other = options(source), options(oracle)
    assert {key for key in one if one[key] != other[key]} == {"data.style"}


@pytest.mark.parametrize("name", FRAMES)
def test_source_only_and_oracle_are_trained_as_adaptsegnet_is_but_for_normalization(name, build):
    path = CONFIGS / f"{name}.yaml"
    built = build(path)
    model, data = built.module, built.datamodule
    assert isinstance(data.val, Cityscapes)
    assert (data.train.train_split, data.val.val_split) == (
        "train" if name == "cityscapes_oracle" else "all",
        "val",
    )
    loader, settings = built.options.loader, model.hparams
    size = loader.resize and tuple(loader.resize)
    assert (size, loader.crop_size, loader.mirror) == (FRAMES[name], "whole", False)
    assert tuple(loader.scales) == model.net.scales == (1,)
    assert images_a_step(built) == 1
    assert [branch.dilation[0] for branch in model.net.head.branches] == [6, 12]
    assert (model.net.style, settings.norm, settings.loss_size) == ("caffe", "frozen", "image")
    groups = model.parameter_groups()
    assert {group["lr"] for group in groups} == {2.5e-4, 2.5e-3}
    assert {group["weight_decay"] for group in groups} == {5e-4}
    assert (settings.momentum, settings.lr_policy, settings.poly_power) == (0.9, "poly", 0.9)
    assert (settings.schedule_steps, built.trainer.max_steps) == (250_000, 150_000)
    assert tuple(model.evaluation.resize) == (512, 1024)
    assert model.evaluation.subsets == (None if name.startswith("gta5") else "rows")
    text = header(path)
    assert "Quoted" in text
    assert "Not measured by this project" in text


def bases_of(path):
    """The bases that an overlay of domain adaptation stands on."""
    said = re.search(r" bases: (.*?) changes: ", header(path))[1]
    return [CONFIGS.parent / name.strip() for name in said.split(",")]


@pytest.mark.parametrize("path", STREETS, ids=lambda path: path.stem)
def test_an_overlay_of_domain_adaptation_changes_exactly_what_it_says(path, build):
    text = header(path)
    said = re.search(r" changes: (.*?)  ", text)[1].split(", ")
    assert len(said) == len(set(said))
    place = path.relative_to(CONFIGS.parent)
    for base in bases_of(path):
        before, built = options(build(base)), build(base, path)
        after = options(built)
        of_class = set(signature(type(built.module)).parameters)  # options of a method's own
        changed = {
            re.sub(r"^(unlabeled_data|model\.optimizer)\..*", r"\1", key)
            for key in before.keys() | after.keys()
            if before.get(key) != after.get(key)
            and not (key not in before and key.removeprefix("model.") in of_class)
        }
        assert changed == set(said), base
        check_run(built)
        assert built.folder.parent.name == yaml.safe_load(path.read_text("utf-8"))["experiment"]
    base = bases_of(path)[0].relative_to(CONFIGS.parent)
    command = f"python -m deeplab_lit.fit --config {base} \\ --config {place} "
    assert command in text
    assert "easured" in text


@pytest.mark.parametrize("path", [*STREETS, *(CONFIGS / f"{name}.yaml" for name in FRAMES)])
def test_every_configuration_of_domain_adaptation_is_listed_with_what_was_quoted(path):
    listed = (CONFIGS / "README.md").read_text("utf-8")
    folder = path.parent.relative_to(CONFIGS)
    if folder.name in ("recipes", "methods"):
        (row,) = re.findall(rf"^\| `{folder}/` \|(.*)$", listed, re.MULTILINE)
        assert f"`{path.stem}`" in row
    else:
        assert f"`{path.relative_to(CONFIGS)}`" in listed


# a part of the labels: images a step, lr of backbone and head, steps, crop, size of the frames
SEMI = {
    "dmt_voc": (8, 2e-3, 2e-3, 14_110, 321, None),
    "dmt_cityscapes": (8, 4e-3, 4e-3, 7_990, (256, 512), (512, 1024)),
    "cutmix_voc": (10, 3e-6, 3e-5, 40_000, 321, None),
    "cutmix_cityscapes": (4, 3e-6, 3e-5, 40_000, (256, 512), (512, 1024)),
}


def test_every_baseline_of_a_part_of_the_labels_is_known():
    assert {path.stem for path in (CONFIGS / "semi").glob("*.yaml")} == SEMI.keys()


@pytest.mark.parametrize("name", SEMI)
def test_a_baseline_of_a_part_of_the_labels_is_trained_as_its_code_does(name, build):
    path = CONFIGS / f"semi/{name}.yaml"
    built = build(path)
    check_run(built)
    batch, lr, head_lr, steps, crop, size = SEMI[name]
    model, data, loader = built.module, built.datamodule, built.options.loader
    method, kind = name.split("_")
    assert isinstance(data.train, DATA[kind][0])
    assert data.train.train_split == ("train_aug" if kind == "voc" else "train")
    assert data.train.selection is None  # the list is the user's
    groups = {group["name"].split(".")[0]: group for group in model.parameter_groups()}
    assert groups["backbone"]["lr"] == pytest.approx(lr)
    assert groups["head"]["lr"] == pytest.approx(head_lr)
    is_dmt = method == "dmt"
    assert {group["weight_decay"] for group in groups.values()} == {5e-4 if is_dmt else 0}
    assert (model.net.style, model.hparams.loss_size) == (
        "caffe" if is_dmt else "torchvision",
        "image",
    )
    assert (images_a_step(built), built.trainer.max_steps) == (batch, steps)
    assert loader.crop_size == crop
    for resize in (loader.resize, model.evaluation.resize):
        assert (resize and tuple(resize)) == size
    scales = data.transform.scales
    if name == "cutmix_cityscapes":
        assert tuple(scales) == (1,)
    else:
        assert (scales.min, scales.max) == (0.5, 1.5)
    text = header(path)
    assert "Quoted" in text
    assert "Not measured by this project" in text
    assert f"python -m deeplab_lit.fit --config configs/semi/{name}.yaml --data.root" in text
    assert "--data.ids" in text
    assert f"`semi/{name}.yaml`" in (CONFIGS / "README.md").read_text("utf-8")
    assert built.folder.parent.name == f"semi_{name}"
