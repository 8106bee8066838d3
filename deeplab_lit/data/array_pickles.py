"""Unpickle dictionaries of arrays and tensors, and run nothing that the pickle brings with it.

A pickle is a program for Python, which may call any function. Here it can name those of ALLOWED
alone, by the names that NumPy 1, NumPy 2 and PyTorch write, and what it gets is never NumPy's or
PyTorch's function of that name, but one of this file, which makes an array of bytes and checks that
there are enough of them. Any other name is refused. Arrays share the bytes of the pickle, and what
copies some copies no more than a few times what the pickle has.
"""

import io
import math
import pickle
import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NoReturn

import numpy as np

from deeplab_lit.data.pickle_steps import Refused, check_steps

MOST_BYTES = 2**32  # of an array
MOST_STEPS = 100_000  # of a pickle; the dictionary of an image takes some 200
COPIES = 4  # of as many bytes as a pickle has, in all; a tensor in old protocols takes two
Copy = Callable[[int], None]  # is told how many bytes will be copied
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
    content = _unpickled(io.BytesIO(data), ALLOWED, most_steps)
    content = content.value if isinstance(content, _Made) else content
    if isinstance(content, list) and len(content) == 1:
        content = content[0]
    if not isinstance(content, dict):
        raise Refused("a pickle, but not of a dictionary")
    if odd := [key for key in content if type(key) is not str and not _is_index(key)]:
        raise Refused(f"a dictionary with a {type(odd[0]).__name__} as a key, expected names")
    made = {key: v.value if isinstance(v, _Made) else v for key, v in content.items()}
    if odd := [key for key, v in made.items() if not isinstance(v, np.ndarray | int | float | str)]:
        raise Refused(f"{str(odd[0])[:80]!r} is neither an array nor a number")
    return made


def unpickled_array(data: bytes) -> np.ndarray:
    """Return the one array in a pickle.

    Raises:
        Refused: it holds something else, or asks for what is not allowed.
    """
    content = _unpickled(io.BytesIO(data), ALLOWED, MOST_STEPS)
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
        raise Refused("an array whose shape or bytes are none")
    expected = math.prod(shape) * dtype.itemsize
    if expected != len(data) or expected > MOST_BYTES or not dtype.itemsize:
        raise Refused(f"{len(data):,} bytes for {shape} of {dtype}")
    if dtype.kind == "U" and np.frombuffer(data, f"{dtype.byteorder}u4").max(initial=0) > 0x10FFFF:
        raise Refused("texts with characters that are none")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if is_fortran else "C")


def _whole(numbers: Any) -> bool:
    """Return whether something is a tuple of at most 8 whole numbers that are not negative."""
    return isinstance(numbers, tuple) and len(numbers) <= 8 and all(map(_is_index, numbers))


def _is_index(number: Any) -> bool:
    return type(number) is int and 0 <= number < 2**63


class _Unpickler(pickle.Unpickler):
    """Gives a pickle what stands for the names that it asks for, and nothing for other names.

    Args:
        pickled: the pickle.
        allowed: what stands for (module, name).
    """

    def __init__(self, pickled: bytes, allowed: Mapping[tuple[str, str], Any]) -> None:
        super().__init__(io.BytesIO(pickled), encoding="latin1")
        self._allowed, self._left = allowed, COPIES * len(pickled)

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name.

        Raises:
            Refused: it stands for nothing.
        """
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        if (module, name) not in self._allowed:
            raise Refused(
                f"it asks for {module[:80]}.{name[:80]}, which is not allowed; nothing in it was "
                "run. Arrays, tensors and dictionaries of them are read; save the maps as such"
            )
        found = self._allowed[module, name]
        return _Function(partial(found, self._copy)) if found in COPYING else _Function(found)

    def persistent_load(self, pid: Any) -> Any:
        """Return how a tensor's storage is described: as ("storage", "<f4", key, "cpu", 24, …)."""
        return pid

    def _copy(self, number: int) -> None:
        """Count bytes that are to be copied.

        Raises:
            Refused: they are many times what the pickle has.
        """
        self._left -= number
        if self._left < 0:
            raise Refused("it asks for the same bytes again and again")


def _unpickled(file: io.BytesIO, allowed: Mapping[tuple[str, str], Any], most_steps: int) -> Any:
    """Run the pickle at which a file stands, and leave the file behind it.

    Raises:
        Refused: it has too many steps, or asks for what is not allowed.
        ValueError: it is none.
    """
    start = file.tell()
    check_steps(file, most_steps)
    end = file.tell()
    file.seek(start)
    return _Unpickler(file.read(end - start), allowed).load()


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


def _empty_array(copy: Copy, *_: Any) -> _Made:
    return _Made(None, partial(_filled_array, copy))


def _filled_array(
    copy: Copy, _: Any, __: Any, shape: Any, dtype: Any, is_fortran: Any, data: Any
) -> Any:
    if _dtype_of(dtype) == np.dtype("O"):
        if shape not in ((), (1,)) or not isinstance(data, list):
            raise Refused("an array of objects, expected one dictionary")
        return data
    if isinstance(data, str):  # of Python 2
        data = _bytes(copy, data, "latin1")
    return array_of(_dtype_of(dtype), shape, bool(is_fortran), data)


def _new_dtype(name: Any, *_: Any) -> _Made:
    name = name if isinstance(name, str) else type(name).__name__
    if not re.fullmatch(r"b1|[fiu][1248]|O8?|U\d{1,4}", name):
        raise Refused(f"arrays of {name[:80]}, expected numbers")
    return _Made(np.dtype(name), _ordered_dtype)


def _ordered_dtype(dtype: np.dtype, _: Any, order: Any, *__: Any) -> np.dtype:
    return dtype.newbyteorder(order) if order in ("<", ">") else dtype


def _dtype_of(dtype: Any) -> np.dtype:
    if not isinstance(dtype, _Made) or not isinstance(dtype.value, np.dtype):
        raise Refused("an array of no type")
    return dtype.value


def _scalar(dtype: Any, data: Any = b"") -> Any:
    return array_of(_dtype_of(dtype), (), False, data).item()


def _storage(copy: Copy, data: Any) -> _Made:
    """Return a tensor's values from bytes in the format that PyTorch had before its zip files.

    Five pickles (a number, a version, sizes of types, the storage's description, its keys), the
    number of values as int64, the values.
    """
    if not isinstance(data, bytes):
        raise Refused("a storage without bytes")
    copy(len(data))
    file = io.BytesIO(data)
    magic, _, _, described, _ = (_unpickled(file, {}, MOST_STEPS) for _ in range(5))
    if magic != MAGIC or not isinstance(described, tuple) or described[0] != "storage":
        raise Refused("a storage in another format than PyTorch's")
    _, kind, _, _, number, *_ = described
    if kind not in STORAGES.values() or file.read(8) != number.to_bytes(8, "little"):
        raise Refused("a storage that does not hold what it claims to")
    return _Made(array_of(np.dtype(kind), (number,), False, memoryview(data)[file.tell() :]))


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
        raise Refused(f"a tensor of {size} with {len(values):,} values")
    if not number:
        return _Made(np.zeros(size, values.dtype))
    strides = tuple(step * values.itemsize for step in stride)
    return _Made(np.ndarray(size, values.dtype, values.data, offset * values.itemsize, strides))


def _bytes(copy: Copy, text: Any, encoding: Any = "") -> bytes:
    """Return bytes as protocol 2 of pickle writes them."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise Refused("bytes of another encoding")
    copy(len(text))
    return text.encode("latin1")


COPYING = (_empty_array, _bytes, _storage)  # they get what counts the bytes that they copy
ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): lambda *_: None,  # named as an argument alone
    ("numpy", "dtype"): _new_dtype,
    ("collections", "OrderedDict"): lambda: None,  # a tensor's hooks: none
    ("_codecs", "encode"): _bytes,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
    ("torch.storage", "_load_from_bytes"): _storage,
}
for _module in ("numpy.core.multiarray", "numpy._core.multiarray"):
    ALLOWED[_module, "_reconstruct"] = _empty_array
    ALLOWED[_module, "scalar"] = _scalar
