"""The library of the `native` backend: `native.cpp`, compiled on first use and loaded.

It is built once a machine, into torch's folder for extensions (TORCH_EXTENSIONS_DIR).
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import tempfile
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
        return _declare(ctypes.CDLL(str(_build()))), ""
    except (OSError, BuildError) as error:
        return None, str(error)


def _build() -> Path:
    """The path of the library; its name stands for the source, the flags and the processor."""
    what = [SOURCE.read_text(), *FLAGS, _processor(), os.environ.get("CXX", "")]
    name = "crf_" + hashlib.sha256("\n".join(what).encode()).hexdigest()[:16]
    default = Path("~/.cache/torch_extensions")
    folder = Path(os.environ.get("TORCH_EXTENSIONS_DIR", default)).expanduser() / "deeplab_lit"
    built = folder / f"{name}.so"
    if built.exists():
        return built
    compiler = os.environ.get("CXX", "c++")
    if not shutil.which(compiler):
        raise BuildError(f"no C++ compiler, looked for {compiler}")
    folder.mkdir(parents=True, exist_ok=True)
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
        (Path(place) / f"{name}.so").replace(built)
    return built


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
