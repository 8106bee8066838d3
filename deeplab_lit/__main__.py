"""python -m deeplab_lit: list the commands; python -m deeplab_lit NAME …: run one."""

import ast
import runpy
import sys
from difflib import get_close_matches
from pathlib import Path

from deeplab_lit.errors import plain_errors
from deeplab_lit.shipped import CONFIGS
from deeplab_lit.terminal import colored

# heading of the list → commands
GROUPS = {
    "Train": ["fit"],
    "Score": ["validate", "tune_crf", "plot_trimap"],
    "Use a trained network": ["predict", "refine", "export", "convert"],
    "Data": ["prepare"],
    "Study": ["ablate", "benchmark"],
}


def commands() -> dict[str, str]:
    """Return the name of each command, with what its docstring's first line says of it.

    The files are read, not imported: importing them all would take seconds.
    """
    purposes = {}
    package = Path(__file__).parent
    for path in [*package.glob("*.py"), *package.glob("*/__main__.py")]:
        doc = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        call, _, purpose = doc.partition("\n")[0].partition(": ")
        name = path.stem if path.parent == package else path.parent.name
        if call == f"python -m deeplab_lit.{name}":
            purposes[name] = purpose.partition(";")[0].rstrip(".")
    return dict(sorted(purposes.items()))


def main() -> None:
    """Run the command named by the first argument.

    Raises:
        SystemExit: code 2 for a name that is no command; the command's own otherwise.
    """
    purposes = commands()
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in purposes:
        del sys.argv[1]
        # alter_sys: Lightning starts further processes as what __main__ says that it is
        runpy.run_module(f"deeplab_lit.{name}", run_name="__main__", alter_sys=True)
        return
    if name in ("--help", "-h"):
        with plain_errors():
            print(listing(purposes), flush=True)
        return
    near = get_close_matches(name, purposes, 1)
    hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(purposes)}"
    print(colored(f"error: no command {name!r}: {hint}", sys.stderr), file=sys.stderr)
    raise SystemExit(2)


def listing(purposes: dict[str, str]) -> str:
    """Return the list of all commands, below the headings of GROUPS.

    Args:
        purposes: of `commands`.
    """
    lines = ["usage: python -m deeplab_lit.COMMAND [options]"]
    width = max(map(len, purposes))
    for heading, names in GROUPS.items():
        lines += ["", f"{heading}:", *(f"  {name:<{width}}  {purposes[name]}" for name in names)]
    lines += ["", f"Configurations, found as configs/….yaml from every folder, lie in {CONFIGS}"]
    first = "python -m deeplab_lit.fit"
    return "\n".join([*lines, "", f"{first} --help explains one. To begin, without data: {first}"])


if __name__ == "__main__":
    main()
