"""Which part of the package knows which, and what importing it costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import deeplab_lit
from deeplab_lit.__main__ import commands

PACKAGE = Path(deeplab_lit.__file__).parent
OPTIONAL = ("wandb", "pydensecrf", "matplotlib")


def sources(part):
    files = sorted((PACKAGE / part).rglob("*.py"))
    assert files
    return files


def nodes_of(file):
    return list(ast.walk(ast.parse(file.read_text("utf-8"))))


def imports(nodes):
    """Full names of all that the nodes import; a relative import gives a leading dot."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield from (f"{module}.{alias.name}" for alias in node.names)


def imported(part):
    names = {name for file in sources(part) for name in imports(nodes_of(file))}
    assert not [name for name in names if name.startswith(".")]  # they would escape these tests
    return names


def below(name, *parents):
    return any(f"{name}.".startswith(f"{parent}.") for parent in parents)


def test_network_needs_torch_and_torchvision_alone():
    ours = ("deeplab_lit.network", "deeplab_lit.errors")
    allowed = ("torch", "torchvision", *ours, *sys.stdlib_module_names)
    names = imported("network")
    assert any(below(name, "torch") for name in names)
    assert not [name for name in names if not below(name, *allowed)]


@pytest.mark.parametrize("part", ["data", "network", "crf"])
def test_data_network_and_crf_know_nothing_of_each_other(part):
    others = [f"deeplab_lit.{p}" for p in ("data", "network", "crf", "training", "cli")]
    others.remove(f"deeplab_lit.{part}")
    assert not [name for name in imported(part) if below(name, *others)]


def test_training_knows_network_and_crf_and_data_only_through_batches():
    names = {name for name in imported("training") if below(name, "deeplab_lit")}
    assert any(below(name, "deeplab_lit.network") for name in names)
    parts = ("network", "crf", "training", "bar", "whole", "errors")
    allowed = [f"deeplab_lit.{part}" for part in parts]
    assert not [name for name in names if not below(name, *allowed)]


def test_prepare_knows_data_and_data_does_not_know_prepare():
    assert not [name for name in imported("data") if below(name, "deeplab_lit.prepare")]
    command = PACKAGE / "prepare/__main__.py"
    modules = [file for file in sources("prepare") if file != command]
    names = {name for file in modules for name in imports(nodes_of(file))}
    known = {name for name in names if below(name, "deeplab_lit")}
    assert any(below(name, "deeplab_lit.data") for name in known)
    allowed = [f"deeplab_lit.{part}" for part in ("data", "prepare", "bar", "whole", "errors")]
    assert not [name for name in known if not below(name, *allowed)]


@pytest.mark.parametrize("file", ["progress_bar.py", "atomic.py", "errors.py"])
def test_what_every_part_may_know_knows_no_part(file):
    """But for the exceptions of libraries, which errors.py looks at when there is one."""
    body = ast.parse((PACKAGE / file).read_text("utf-8")).body
    names = list(imports(body))
    assert names
    allowed = ("deeplab_lit.errors", "tqdm", *sys.stdlib_module_names)
    assert not [name for name in names if not below(name, *allowed)]
    assert not [name for name in imports(nodes_of(PACKAGE / file)) if below(name, "deeplab_lit")
                and not below(name, "deeplab_lit.errors")]  # fmt: skip


def test_crf_needs_no_lightning():
    bad = ("lightning", "pytorch_lightning", "torchmetrics")
    assert not [name for name in imported("crf") if below(name, *bad)]


def test_optional_packages_are_imported_only_inside_the_functions_that_use_them():
    late = []
    for file in PACKAGE.rglob("*.py"):
        nodes = nodes_of(file)
        functions = [n for n in nodes if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        inside = {id(node) for function in functions for node in ast.walk(function)}
        early = imports(node for node in nodes if id(node) not in inside)
        assert not [name for name in early if below(name, *OPTIONAL)], file
        late += imports(node for node in nodes if id(node) in inside)
    assert "wandb" in late  # the walk does see them


def test_importing_the_command_line_loads_no_optional_package():
    # torchmetrics, which Lightning imports, loads matplotlib wherever it is installed: what counts
    # is what our import adds to those two
    code = f"""
import sys
import lightning.pytorch.cli, torchmetrics.classification
before = set(sys.modules)
import deeplab_lit, deeplab_lit.cli.lightning_cli
print(*(name for name in {OPTIONAL} if name in sys.modules and name not in before))
print("deeplab_lit.cli.lightning_cli" in sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True"]


def test_every_command_can_be_the_first_that_is_imported():
    """Modules that import each other may do so in one order and not in another."""
    code = """
import sys
from runpy import run_module
from deeplab_lit.__main__ import commands
for name in commands():
    for module in [module for module in sys.modules if module.partition(".")[0] == "deeplab_lit"]:
        del sys.modules[module]
    run_module(f"deeplab_lit.{name}", run_name="imported")  # of a package its __main__
    print(name)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == list(commands())


def test_importing_the_network_loads_no_lightning():
    code = "import sys, deeplab_lit; print('lightning' in sys.modules, 'torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False", "True"]
