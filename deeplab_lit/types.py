"""Types and values that every part shares, and classes that are named, like "my_net.MobileNet".

A class that is typed on the command line or handed over in Python is imported already. A weight
file names its class, too; but importing runs code, so that a name in a file alone imports nothing.
"""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, Literal

from deeplab_lit.errors import UserError

VOID = 255  # in a mask: a pixel that is neither trained on nor scored

Color = tuple[int, int, int]  # R, G, B in 0…255
Classes = dict[str, Color]  # name → color, in the order of the class indices

Size = tuple[int, int]  # height and width in pixels, as options have them
Filter = Literal["bicubic", "bilinear"]  # of images that are resized, as Pillow names them
SMALLEST_SIDE, LARGEST_SIDE = 33, 8192  # pixels: 33 are 5 feature cells of stride 8

VARIABLE = "DEEPLAB_LIT_IMPORT"  # modules, separated by commas, whose classes a file may name


class ClassPathError(UserError, ValueError):
    """A class cannot be had by its name; says which, why and what to do."""


def check_size(name: str, size: Sequence[int]) -> Size:
    """Return a height and a width as a tuple.

    Args:
        name: of the option.
        size: its value.

    Raises:
        ValueError: a side is out of range.
    """
    height, width = size
    if not all(SMALLEST_SIDE <= side <= LARGEST_SIDE for side in (height, width)):
        raise ValueError(
            f"{name} must be a height and a width in {SMALLEST_SIDE}…{LARGEST_SIDE} pixels, got "
            f"{list(size)}"
        )
    return height, width


def path_of(part: str | type) -> str:
    """Return the name of a class as files have it, "module.Class"; any other name as it is."""
    return part if isinstance(part, str) else f"{part.__module__}.{part.__qualname__}"


def class_of(path: str, base: type) -> type[Any]:
    """Return the class of a name like "my_net.MobileNet".

    Args:
        path: module and class. The module has been imported already, or the environment variable
            DEEPLAB_LIT_IMPORT names it or a package that holds it.
        base: what the class has to inherit from.

    Raises:
        ClassPathError: the module may not be imported, or cannot be; or it has no such class.
    """
    module, _, name = path.rpartition(".")
    allowed = [entry.strip() for entry in os.environ.get(VARIABLE, "").split(",")]
    if module not in sys.modules:
        if not any(entry and f"{module}.".startswith(f"{entry}.") for entry in allowed):
            raise ClassPathError(
                f"{path} is a class outside this package, and a name in a file alone imports "
                f"nothing. If you trust it: set the variable {VARIABLE}={module} before the "
                f"command; or, in Python, import {module} first"
            )
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ClassPathError(
                f"{VARIABLE}={module} cannot be imported ({error}): start the command in the "
                "module's folder, or add that to PYTHONPATH"
            ) from error
    part = getattr(sys.modules[module], name, None)
    if not (isinstance(part, type) and issubclass(part, base)):
        raise ClassPathError(f"{path} is no class that inherits from {path_of(base)}")
    return part
