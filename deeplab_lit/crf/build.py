"""The library of the `native` backend: `native.cpp`, compiled on first use and loaded.

It is built once a machine, into torch's folder for extensions (TORCH_EXTENSIONS_DIR). Loading it
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
import tempfile
import warnings
from functools import lru_cache
from pathlib import Path
from threading import Lock

SOURCE = Path(__file__).with_name("native.cpp")
FLAGS = ["-O3", "-march=native", "-std=c++17", "-fopenmp"]
LOADING = Lock()


class BuildError(RuntimeError):
    """The library cannot be built here: says why, in a line."""


def compiled() -> ctypes.CDLL:
    """The compiled library, built if this is the first time on this machine.

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
    """The library; or null and the reason: it is not tried again in this process."""
    try:
        built = _build()
        return _declare(ctypes.CDLL(str(built))), ""
    except AttributeError as error:
        return None, f"{built} is another library ({error}): remove it"
    except (OSError, RuntimeError) as error:  # expanduser raises the latter where there is no home
        return None, str(error)


def _build() -> Path:
    """The path of the library; its name stands for the source, the flags and the processor."""
    what = [SOURCE.read_text("utf-8"), *FLAGS, _processor(), os.environ.get("CXX", "")]
    name = "crf_" + hashlib.sha256("\n".join(what).encode()).hexdigest()[:16]
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
    """Why the library must not be kept in a folder; None where it may.

    Our own folder is closed to others first; what they have put there before is theirs, or open to
    them, and not taken. Folders above count where anyone may exchange what is in them.
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
    """Who else may have written a file or a folder; None: only this user and the superuser."""
    if not hasattr(os, "geteuid"):  # Windows: the user's folder is closed by other means
        return None
    found = path.stat()
    if found.st_uid not in (os.geteuid(), 0):
        return f"{path} belongs to another user"
    # many systems give each user a group of the same number, and let it write
    open_to_group = found.st_mode & stat.S_IWGRP and found.st_gid != os.geteuid()
    if found.st_mode & stat.S_IWOTH or open_to_group:
        return f"other users may write to {path}"
    return None


def _compile(built: Path) -> None:
    """Write the library whole or not at all.

    Raises:
        BuildError: the compiler fails.
    """
    name, folder = built.stem, built.parent
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
    """What -march=native depends on, so that a home shared by machines holds a file for each."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine() + platform.processor()
    wanted = ("model name", "flags", "Features", "CPU part")
    return platform.machine() + "".join(sorted({x for x in lines if x.startswith(wanted)}))


def _declare(lib: ctypes.CDLL) -> ctypes.CDLL:
    pointer, long, integer = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int
    lib.lattice_new.argtypes = [pointer, long, integer, pointer, pointer, long, integer]
    lib.lattice_new.restype = pointer
    lib.lattice_free.argtypes, lib.lattice_free.restype = [pointer], None
    lib.mean_field.argtypes = [pointer, pointer, integer, pointer, pointer, *[integer] * 3]
    lib.mean_field.restype = integer
    return lib
