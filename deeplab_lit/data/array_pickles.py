"""Unpickle dictionaries of arrays and tensors, and run nothing that the pickle brings with it.

A pickle is a program for Python, which may call any function. Here it can name those of ALLOWED
alone, by the names that NumPy 1, NumPy 2 and PyTorch write, and what it gets is never NumPy's or
PyTorch's function of that name, but one of this file, which makes an array of bytes and checks that
there are enough of them. Any other name is refused.
"""

import io
import math
import pickle
import pickletools
import re
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np

MOST_BYTES = 2**32  # of an array
MOST_STEPS = 100_000  # of a pickle; the dictionary of an image takes some 200
MAGIC = 0x1950A86A20F9469CFC6C  # with which a tensor's storage begins, in PyTorch's old format
STORAGES = {
    "BoolStorage": "?",
    "ByteStorage": "u1",
    "CharStorage": "i1",
    "ShortStorage": "<i2",
    "IntStorage": "<i4",
    "LongStorage": "<i8",
    "HalfStorage": "<f2",
    "FloatStorage": "<f4",
    "DoubleStorage": "<f8",
}


class Refused(ValueError):
    """A pickle asks for something that is not allowed, or does not hold what it claims to."""


def unpickled_dictionary(data: bytes | memoryview, most_steps: int = MOST_STEPS) -> dict[Any, Any]:
    """Return the one dictionary in a pickled array, as `np.save` of a dictionary makes it.

    Args:
        data: the pickle.
        most_steps: that it may have; about 20 are for each array.

    Returns:
        Its values are arrays, numbers and texts; tensors are arrays as well.

    Raises:
        Refused: it holds something else, or asks for what is not allowed.
    """
    content = _unpickled(io.BytesIO(data), most_steps)
    content = content.value if isinstance(content, _Made) else content
    if isinstance(content, list) and len(content) == 1:
        content = content[0]
    if not isinstance(content, dict):
        raise Refused("a pickle, but not of a dictionary")
    made = {key: v.value if isinstance(v, _Made) else v for key, v in content.items()}
    if odd := [key for key, v in made.items() if not isinstance(v, np.ndarray | int | float | str)]:
        raise Refused(f"{str(odd[0])[:80]!r} is neither an array nor a number")
    return made


def unpickled_array(data: bytes) -> np.ndarray:
    """Return the one array in a pickle.

    Raises:
        Refused: it holds something else, or asks for what is not allowed.
    """
    content = _unpickled(io.BytesIO(data), MOST_STEPS)
    if not isinstance(content, _Made) or not isinstance(content.value, np.ndarray):
        raise Refused("a pickle, but not of an array")
    return content.value


def array_of(
    dtype: np.dtype, shape: tuple[int, ...], is_fortran: bool, data: bytes | memoryview
) -> np.ndarray:
    """Return bytes as an array, read-only.

    Raises:
        Refused: they are of another number; or what is to be made is no array of numbers.
    """
    if not isinstance(dtype, np.dtype) or dtype.kind not in "biufU" or dtype.itemsize > MOST_BYTES:
        raise Refused(f"an array of {dtype}, expected numbers")
    if not _whole(shape) or not isinstance(data, bytes | memoryview):
        raise Refused(f"no array has the shape {str(shape)[:80]}")
    expected = math.prod(shape) * dtype.itemsize
    if expected != len(data) or expected > MOST_BYTES or not dtype.itemsize:
        raise Refused(f"{len(data):,} bytes for {str(shape)[:80]} of {dtype}")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if is_fortran else "C")


def _whole(numbers: Any) -> bool:
    """Return whether something is a tuple of at most 8 whole numbers that are not negative."""
    return (
        isinstance(numbers, tuple)
        and len(numbers) <= 8
        and all(type(n) is int and n >= 0 for n in numbers)
    )


class _Unpickler(pickle.Unpickler):
    """Gives a pickle the functions of ALLOWED for the names that it asks for, and no others."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name.

        Raises:
            Refused: it stands for nothing.
        """
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if (module, name) not in ALLOWED:
            raise Refused(
                f"it asks for {module[:80]}.{name[:80]}, which is not allowed; nothing in it was "
                "run. Arrays, tensors and dictionaries of them are read; save the maps as such"
            )
        return ALLOWED[module, name]

    def persistent_load(self, pid: Any) -> Any:
        """Return how a tensor's storage is described: as ("storage", "<f4", key, "cpu", 24, …)."""
        return pid


def _unpickled(file: io.BytesIO, most_steps: int) -> Any:
    """Run the pickle at which a file stands, and leave the file behind it.

    Raises:
        Refused: it has too many steps, or asks for what is not allowed.
        ValueError: it is none.
    """
    start = file.tell()
    # genops checks lengths, and runs nothing
    for step, (opcode, argument, _) in enumerate(pickletools.genops(file)):
        if step >= most_steps:
            raise Refused(f"a pickle of more than {most_steps:,} steps")
        # room is set aside for all objects before one that is to be kept
        if opcode.name == "LONG_BINPUT" and int(argument or 0) > most_steps:
            raise Refused(f"a pickle that claims to keep {argument:,} objects")
    end = file.tell()
    file.seek(start)
    content = _Unpickler(io.BytesIO(file.read(end - start)), encoding="latin1").load()
    file.seek(end)
    return content


class _Made:
    """Something that a pickle makes. It can be filled where that is foreseen, and not changed.

    Args:
        value: an array, or a dtype.
        fill: of the state that a pickle has for it → the value. None: it takes none.
    """

    __slots__ = ("_fill", "value")

    def __init__(self, value: Any, fill: Callable[..., Any] | None = None) -> None:
        self.value, self._fill = value, fill

    def __setstate__(self, state: Any) -> None:
        if self._fill is None or not isinstance(state, tuple):
            raise Refused("a state for something that has none")
        self.value, self._fill = self._fill(self.value, *state), None


class _Function:
    """A function that a pickle may call, and not change.

    Args:
        call: the function.
    """

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setstate__(self, state: Any) -> NoReturn:
        raise Refused("a state for a function")


def _empty_array(*_: Any) -> _Made:
    return _Made(None, _filled_array)


def _filled_array(_: Any, __: Any, shape: Any, dtype: Any, is_fortran: Any, data: Any) -> Any:
    if isinstance(dtype, _Made) and dtype.value == np.dtype("O"):
        if shape not in ((), (1,)) or not isinstance(data, list):
            raise Refused("an array of objects, expected one dictionary")
        return data
    data = data.encode("latin1") if isinstance(data, str) else data  # of Python 2
    return array_of(_dtype_of(dtype), shape, bool(is_fortran), data)


def _new_dtype(name: Any, *_: Any) -> _Made:
    if not isinstance(name, str) or not re.fullmatch(r"b1|[fiu][1248]|O8?|U\d{1,4}", name):
        raise Refused(f"arrays of {str(name)[:80]}, expected numbers")
    return _Made(np.dtype(name), _ordered_dtype)


def _ordered_dtype(dtype: np.dtype, _: Any, order: Any, *__: Any) -> np.dtype:
    return dtype.newbyteorder(order) if order in ("<", ">") else dtype


def _dtype_of(dtype: Any) -> np.dtype:
    if not isinstance(dtype, _Made) or not isinstance(dtype.value, np.dtype):
        raise Refused("an array of no type")
    return dtype.value


def _scalar(dtype: Any, data: Any = b"") -> Any:
    return array_of(_dtype_of(dtype), (), False, data).item()


def _storage(data: Any) -> _Made:
    """Return a tensor's values from bytes in the format that PyTorch had before its zip files.

    Five pickles (a number, a version, sizes of types, the storage's description, its keys), the
    number of values as int64, the values.
    """
    if not isinstance(data, bytes):
        raise Refused("a storage without bytes")
    file = io.BytesIO(data)
    magic, _, _, described, _ = (_unpickled(file, MOST_STEPS) for _ in range(5))
    if magic != MAGIC or not isinstance(described, tuple) or described[0] != "storage":
        raise Refused("a storage in another format than PyTorch's")
    _, kind, _, _, number, *_ = described
    if kind not in STORAGES.values() or data[file.tell() :][:8] != number.to_bytes(8, "little"):
        raise Refused("a storage that does not hold what it claims to")
    values = data[file.tell() + 8 :]
    return _Made(array_of(np.dtype(kind), (number,), False, values))


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Made:
    """Return a tensor as an array: a view of its storage, whose every value it has once at most."""
    values = storage.value if isinstance(storage, _Made) else None
    if not isinstance(values, np.ndarray) or not all(map(_whole, ((offset,), size, stride))):
        raise Refused("a tensor without values")
    if len(size) != len(stride):
        raise Refused("a tensor without a shape")
    number = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if number and (number > len(values) or last >= len(values)):
        raise Refused(f"a tensor of {str(size)[:80]} with {len(values):,} values")
    if not number:
        return _Made(np.zeros(size, values.dtype))
    strides = tuple(step * values.itemsize for step in stride)
    view = np.ndarray(size, values.dtype, values.data, offset * values.itemsize, strides)
    return _Made(view.copy())


def _bytes(text: Any, encoding: Any = "") -> bytes:
    """Return bytes as protocol 2 of pickle writes them."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise Refused("bytes of another encoding")
    return text.encode("latin1")


ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): None,
    ("numpy", "dtype"): _Function(_new_dtype),
    ("collections", "OrderedDict"): _Function(lambda: None),  # a tensor's hooks: none
    ("_codecs", "encode"): _Function(_bytes),
    ("torch._utils", "_rebuild_tensor_v2"): _Function(_tensor),
    ("torch.storage", "_load_from_bytes"): _Function(_storage),
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    ALLOWED[_module, "_reconstruct"] = _Function(_empty_array)
    ALLOWED[_module, "scalar"] = _Function(_scalar)
