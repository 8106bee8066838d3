"""What an installation has: requirements.txt in its metadata, and every file that is no Python."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import deeplab_lit
from deeplab_lit.errors import EXTRAS
from deeplab_lit.shipped import CONFIGS, shipped

ROOT = Path(deeplab_lit.__file__).parents[1]
SOURCE = ("pyproject.toml", "setup.py", "requirements.txt", "README.md", "LICENSE")

pytestmark = pytest.mark.skipif(
    not (ROOT / "pyproject.toml").exists(), reason="an installed package has no sources to build"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from a copy, so that nothing is left in the clone."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCE:
        shutil.copy(ROOT / name, folder)
    junk = shutil.ignore_patterns("__pycache__")
    for name in ("deeplab_lit", "configs"):
        shutil.copytree(ROOT / name, folder / name, ignore=junk)
    code = "import setuptools.build_meta as b; print(b.build_wheel('.'))"
    run = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    with zipfile.ZipFile(folder / run.stdout.split()[-1]) as file:
        yield file


def read(wheel, name):
    (path,) = [path for path in wheel.namelist() if path.endswith(f".dist-info/{name}")]
    return wheel.read(path)


def by_extra():
    """Extra → requirements, read from requirements.txt apart from setup.py; "" for all."""
    text = (ROOT / "requirements.txt").read_text("utf-8")
    head, *parts = re.split(r"^# \[(\w+)\]:", text, flags=re.MULTILINE)
    sections = {"": head} | dict(zip(parts[::2], parts[1::2], strict=True))
    return {
        extra: {Requirement(line.split("  #")[0].strip()) for line in section.splitlines()
                if line[:1].isalpha()}
        for extra, section in sections.items()
    }  # fmt: skip


def test_the_numbers_of_an_installation_are_those_of_requirements_txt(wheel):
    about = message_from_bytes(read(wheel, "METADATA"))
    expected = by_extra()
    assert sum(map(len, expected.values())) > 20
    assert {"", "export", "dashboards", "coco", "tests"} == expected.keys()
    found = {extra: set() for extra in expected}
    for line in about.get_all("Requires-Dist"):
        requirement, _, extra = line.partition("; extra == ")
        found[extra.strip('"')].add(Requirement(requirement))
    assert found == expected
    assert about["Version"] == deeplab_lit.__version__
    assert about["License-Expression"] == "MIT"


def test_an_extra_that_an_error_names_installs_what_is_missing():
    for module, extra in EXTRAS.items():
        assert module.replace("_", "-") in {requirement.name for requirement in by_extra()[extra]}


def test_an_installation_has_every_file_of_the_package_and_all_configurations(wheel):
    package = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "deeplab_lit").rglob("*.*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"deeplab_lit/py.typed", "deeplab_lit/crf/native.cpp"} <= package
    configs = {f"deeplab_lit/configs/{path.relative_to(CONFIGS).as_posix()}"
               for path in CONFIGS.rglob("*.*")}  # fmt: skip
    assert {f"deeplab_lit/{name}" for name in shipped()} < configs
    assert "deeplab_lit/configs/slurm.sbatch" in configs
    found = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert found == package | configs
    assert read(wheel, "licenses/LICENSE").startswith(b"MIT License")


def test_constraints_pin_versions_that_requirements_txt_allows():
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if line[:1] not in ("#", ""))
    assert all(re.fullmatch(r"[\w.]+(\+\w+)?", version) for version in pinned.values())
    names = {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in pinned.items()}
    for requirement in set().union(*by_extra().values()):
        version = names[re.sub(r"[-_.]+", "-", requirement.name).lower()]
        assert version in requirement.specifier, requirement


def test_the_pythons_that_are_tested_are_those_that_are_promised():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    workflow = (ROOT / ".github/workflows/tests.yml").read_text("utf-8")
    tested = re.search(r'python-version: \["(.+)"\]', workflow)[1].split('", "')
    assert project["requires-python"] == f">={tested[0]}"
    assert tested == ["3.11", "3.12", "3.13"]
