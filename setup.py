"""Tell setuptools what pyproject.toml cannot: requirements.txt by extras, and configs/' place."""

import re
from pathlib import Path

from setuptools import find_packages, setup


def requirements() -> dict[str, list[str]]:
    """Return extra → its requirements in requirements.txt; those of all are at ""."""
    sections: dict[str, list[str]] = {"": []}
    for line in Path(__file__).with_name("requirements.txt").read_text("utf-8").splitlines():
        if heading := re.match(r"# \[(\w+)\]", line):
            sections[heading[1]] = []
        elif requirement := line.partition("#")[0].strip():
            list(sections.values())[-1].append(requirement)
    return sections


if __name__ == "__main__":
    extras = requirements()
    setup(
        install_requires=extras.pop(""),
        extras_require=extras,
        packages=[*find_packages(include=["deeplab_lit", "deeplab_lit.*"]), "deeplab_lit.configs"],
        package_dir={"deeplab_lit.configs": "configs"},
        package_data={
            "": ["*.cpp", "*.j2", "*.md", "py.typed"],
            "deeplab_lit.configs": ["**/*.md", "**/*.yaml", "*.sbatch"],
        },
    )
