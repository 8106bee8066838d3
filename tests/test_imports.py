"""Which part of the package knows which, how its files are named, and what importing it costs."""

import ast
import functools
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from PIL import Image

import deeplab_lit
from deeplab_lit.__main__ import commands
from deeplab_lit.errors import EXTRAS

PACKAGE = Path(deeplab_lit.__file__).parent
# a part imports those of the lines above it, and of its own line nobody but itself
FLOORS = [
    ["terminal"],
    ["errors", "text"],
    ["types", "shipped", "workers"],
    ["atomic", "progress_bar", "yaml_files"],
    ["download"],
    ["data", "network", "crf"],
    ["loading", "pictures"],
    ["scoring"],
    ["runs"],
    ["training"],
    ["methods", "cli"],
    ["segment"],
    ["fit", "validate", "predict", "refine", "convert", "export", "plot_trimap"],
    ["prepare", "benchmark", "ablate"],
    ["tune_crf"],
    ["__init__", "__main__"],
]
FLOOR = {part: number for number, parts in enumerate(FLOORS) for part in parts}
DATA_SETS = {"ade20k", "cityscapes", "coco", "coco_stuff", "folder", "gta5", "synthia", "voc"}
OPTIONAL = ("wandb", "pydensecrf", "matplotlib", *EXTRAS)
LIGHTNING = ("lightning", "pytorch_lightning", "lightning_fabric", "torchmetrics")

MODULES = 227


@functools.cache
def modules():
    """Path below the package → its nodes."""
    files = sorted(PACKAGE.rglob("*.py"))
    assert len(files) > 50
    return {f.relative_to(PACKAGE): list(ast.walk(ast.parse(f.read_text("utf-8")))) for f in files}


def imports(nodes):
    """Full names of all that the nodes import; a relative import gives a leading dot."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (f"{module}.{alias.name}" for alias in node.names)


def part_of(path):
    return path.parts[0].removesuffix(".py")


def imported(part):
    names = {
        n for path, nodes in modules().items() if part_of(path) == part for n in imports(nodes)
    }
    assert names
    return names


def below(name, *parents):
    return any(f"{name}.".startswith(f"{parent}.") for parent in parents)


def test_imports_run_downwards():
    seen, upward = set(), set()
    for path, nodes in modules().items():
        part = part_of(path)
        for name in imports(nodes):
            assert not name.startswith("."), f"{path}: {name} would escape this test"
            other = name.split(".")[1] if below(name, "deeplab_lit") and "." in name else None
            if other in FLOOR and other != part:
                seen.add((part, other))
                if FLOOR[other] >= FLOOR[part]:
                    upward.add(f"{path} imports {name}")
    assert {("training", "network"), ("cli", "errors")} <= seen
    assert {part_of(path) for path in modules()} <= FLOOR.keys()
    assert not upward


def test_the_network_needs_torch_torchvision_and_safetensors_alone():
    allowed = ("torch", "torchvision", "safetensors", "deeplab_lit", *sys.stdlib_module_names)
    assert not [name for name in imported("network") if not below(name, *allowed)]


@pytest.mark.parametrize("part", ["data", "network", "crf", "pictures", "segment"])
def test_what_serves_a_trained_network_needs_no_lightning(part):
    assert not [name for name in imported(part) if below(name, *LIGHTNING)]


def test_optional_packages_are_imported_only_inside_the_functions_that_use_them():
    late = []
    for path, nodes in modules().items():
        functions = [n for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        inside = {id(node) for function in functions for node in ast.walk(function)}
        early = imports(node for node in nodes if id(node) not in inside)
        assert not [name for name in early if below(name, *OPTIONAL)], path
        late += imports(node for node in nodes if id(node) in inside)
    assert "wandb" in late  # the walk does see them


def test_the_package_stays_small_enough_to_know():
    assert len(modules()) <= MODULES


def test_no_two_files_share_a_name():
    """But for the names of data sets, which are read in one place and fetched in another."""
    stems = defaultdict(list)
    for path in modules():
        if path.stem not in ("__init__", "__main__"):
            stems[path.stem].append(path.parent.name)
    twice = {stem for stem, places in stems.items() if len(places) > 1}
    twice -= DATA_SETS
    assert not twice


def test_a_file_that_one_other_imports_is_worth_a_file():
    importers = defaultdict(set)
    known = {".".join(path.with_suffix("").parts) for path in modules()}
    for path, nodes in modules().items():
        for name in imports(nodes):
            name = name.removeprefix("deeplab_lit.")
            importers[name if name in known else name.rpartition(".")[0]].add(path)
    thin = {
        str(path)
        for path in modules()
        if path.stem not in ("__init__", "__main__")
        and len((PACKAGE / path).read_text("utf-8").splitlines()) < 40
        and len(importers[".".join(path.with_suffix("").parts)]) == 1
    }
    assert not thin


COSTS = """
import sys
def loaded(what):
    names = ("torch", "torchvision", "lightning", "torchmetrics", "matplotlib", "wandb")
    print(what, *(name for name in names if name in sys.modules))
import deeplab_lit
loaded("package")
from deeplab_lit.__main__ import commands
commands()
loaded("commands")
from deeplab_lit import DenseCRF
loaded("DenseCRF")
from deeplab_lit import predict
predict.build_parser()
loaded("help")
from deeplab_lit import DeepLabV2, Segmenter, load
net = load(sys.argv[1])
Segmenter(net, crf=DenseCRF(iterations=1))
loaded("load")
from deeplab_lit import VOC, Cityscapes, Folder, Shapes
Shapes(train_size=1, val_size=1)
loaded("data")
predict.main(["--ckpt_path", sys.argv[1], "--images", sys.argv[2], "--out", sys.argv[3]])
loaded("predict")
"""


IN_TURN = """
from runpy import run_module
for name in commands():
    for module in [module for module in sys.modules if module.partition(".")[0] == "deeplab_lit"]:
        del sys.modules[module]
    run_module(f"deeplab_lit.{name}", run_name="imported")  # of a package its __main__
    print("first", name)
"""


@pytest.fixture(scope="module")
def interpreter(trained, tmp_path_factory):
    """First words and lines of a fresh one: it does what users do, then imports each command."""
    folder = tmp_path_factory.mktemp("interpreter")
    Image.new("RGB", (50, 40)).save(folder / "image.png")
    args = map(str, (trained, folder / "image.png", folder / "out"))
    code = [sys.executable, "-c", COSTS + IN_TURN, *args]
    run = subprocess.run(code, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return [(line.partition(" ")[0], line) for line in run.stdout.splitlines()]


def test_each_user_pays_for_what_he_uses(interpreter):
    """Of one interpreter, step by step: no step loads Lightning, matplotlib or W&B."""
    names = ("package", "commands", "DenseCRF", "help", "load", "data", "predict")
    steps = [line for word, line in interpreter if word in names]
    # torchvision takes as long again as torch: help waits for torch alone
    expected = [*names[:2], *(f"{name} torch" for name in names[2:4])]
    assert steps == [*expected, *(f"{name} torch torchvision" for name in names[4:])]


def test_the_api_lists_what_it_gives():
    assert set(deeplab_lit.__all__) <= set(dir(deeplab_lit))
    for name in deeplab_lit.__all__:
        assert getattr(deeplab_lit, name) is not None
    assert deeplab_lit._MODULES.keys() == set(deeplab_lit.__all__) - {"__version__", "load"}
    with pytest.raises(AttributeError, match="no attribute 'DeepLabV3'"):
        deeplab_lit.DeepLabV3  # noqa: B018


def test_every_command_can_be_the_first_that_is_imported(interpreter):
    """Modules that import each other may do so in one order and not in another."""
    assert [line for word, line in interpreter if word == "first"] == [
        f"first {name}" for name in commands()
    ]
