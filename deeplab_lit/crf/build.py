"""Compile `native.cpp`, the library of the `native` backend, on first use, and load it.

It is built once per machine, in torch's folder for extensions (TORCH_EXTENSIONS_DIR). Loading it
runs what is in it, so one that other users may have written is never loaded.
"""

import atexit
import ctypes
import hashlib
import logging
import os
import platform
import shutil
import stat
import sys
import tempfile
import warnings
from functools import lru_cache
from pathlib import Path
from threading import Lock

from deeplab_lit.text import say

SOURCE = Path(__file__).with_name("native.cpp")
FLAGS = ["-O3", "-march=native", "-std=c++17", "-fopenmp"]
LOADING = Lock()


class BuildError(RuntimeError):
    """The library cannot be built here; the message says why, in one line."""


def compiled() -> ctypes.CDLL:
    """Return the compiled library; build it if this is the first time on this machine.

    Raises:
        BuildError: there is no compiler or it fails.
    """
    with LOADING:
        library, why_not = _load()
    if library is None:
        raise BuildError(why_not)
    return library


@lru_cache(maxsize=1)
def _load() -> tuple[ctypes.CDLL | None, str]:
    """Return the library, or None and the reason; a failure is not tried again in this process."""
    try:
        built = _build()
        return _declare(ctypes.CDLL(str(built))), ""
    except AttributeError as error:
        return None, f"{built} is another library ({error}): remove it"
    except (OSError, RuntimeError) as error:  # expanduser raises the latter where there is no home
        return None, str(error)


def _build() -> Path:
    """Return the library's path; its name is a hash of source, flags, compiler and processor."""
    parts = [SOURCE.read_text("utf-8"), *FLAGS, _processor(), os.environ.get("CXX", "")]
    name = "crf_" + hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]
    default = Path("~/.cache/torch_extensions")
    place = Path(os.environ.get("TORCH_EXTENSIONS_DIR", default)).expanduser()
    folder = place.resolve() / "deeplab_lit"
    folder_problem = _problem_of(folder)
    built = folder / f"{name}.so"
    if folder_problem is None and built.exists() and _others_may_write(built) is None:
        return built
    compiler = os.environ.get("CXX", "c++")
    if not shutil.which(compiler):
        raise BuildError(f"no C++ compiler, looked for {compiler}")
    if folder_problem is not None:
        warnings.warn(
            f"{folder_problem}, so the CRF's library is built for this process alone: set "
            "TORCH_EXTENSIONS_DIR to a folder of your own",
            stacklevel=2,
        )
        folder = Path(tempfile.mkdtemp(prefix="deeplab_lit-"))  # mode 0700
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        built = folder / built.name
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _compile(built)
    return built


def _problem_of(folder: Path) -> str | None:
    """Return why the library must not be kept in a folder; None where it may.

    A folder of this user is closed to others first; files that they wrote there before belong to
    them, or are open to them, and are not loaded. Parent folders count where anyone may replace
    their content.
    """
    for above in folder.parents:
        mode = above.stat().st_mode if above.exists() else 0
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            return f"everyone may write to {above}"
    if not folder.exists():
        return None
    if hasattr(os, "geteuid") and folder.stat().st_uid == os.geteuid():
        folder.chmod(folder.stat().st_mode & ~(stat.S_IWGRP | stat.S_IWOTH))
    return _others_may_write(folder)


def _others_may_write(path: Path) -> str | None:
    """Return who else may have written a path; None: only this user and the superuser."""
    if not hasattr(os, "geteuid"):  # Windows: the user's folder is closed by other means
        return None
    status = path.stat()
    if status.st_uid not in (os.geteuid(), 0):
        return f"{path} belongs to another user"
    # many systems give each user a group of the same number, and let it write
    open_to_group = status.st_mode & stat.S_IWGRP and status.st_gid != os.geteuid()
    if status.st_mode & stat.S_IWOTH or open_to_group:
        return f"other users may write to {path}"
    return None


def _compile(built: Path) -> None:
    """Compile the library and move it into place in one step.

    Raises:
        BuildError: the compiler fails.
    """
    name, folder = built.stem, built.parent
    say(f"Building    the CRF's library, once on this machine: {built}", file=sys.stderr)
    # every process builds in a place of its own and moves the result: no lock that could stay
    with tempfile.TemporaryDirectory(dir=folder) as place:
        try:
            logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # no CUDA: fine
            from torch.utils import cpp_extension

            cpp_extension.load(
                name,
                [str(SOURCE)],
                extra_cflags=FLAGS,
                extra_ldflags=["-fopenmp"],
                build_directory=place,
                is_python_module=False,
            )
        except Exception as error:  # of many kinds: no ninja, no compiler, an unknown flag
            raise BuildError((str(error) or repr(error)).splitlines()[0][:120]) from error
        (Path(place) / f"{name}.so").chmod(0o700)
        (Path(place) / f"{name}.so").replace(built)


def _processor() -> str:
    """Return what -march=native depends on: a home shared by machines holds a file for each."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine() + platform.processor()
    wanted = ("model name", "flags", "Features", "CPU part")
    return platform.machine() + "".join(sorted({x for x in lines if x.startswith(wanted)}))


def _declare(lib: ctypes.CDLL) -> ctypes.CDLL:
    """Declare the types of the library's functions; raise AttributeError if one is missing."""
    pointer, long, integer = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    lib.lattice_new.argtypes = [pointer, long, integer, pointer, pointer, long, integer]
    lib.lattice_new.restype = pointer
    lib.lattice_free.argtypes, lib.lattice_free.restype = [pointer], None
    lib.mean_field.argtypes = [pointer, pointer, integer, pointer, pointer, *[integer] * 3]
    lib.mean_field.restype = integer
    return lib
