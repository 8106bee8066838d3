"""Safetensors files: 8 bytes with the header's length, the header as JSON, then the numbers."""

import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

MAX_HEADER = 100_000_000  # bytes, as in the format's own reader
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


class SafetensorsFormatError(ValueError):
    """The bytes are no safetensors file; says where and why."""


def looks_like_safetensors(start: bytes, size: int) -> bool:
    """Whether a file of `size` bytes that begins with `start` (9 bytes or more) may be one."""
    length = int.from_bytes(start[:8], "little")
    return start[8:9] == b"{" and length <= MAX_HEADER and (length < size or size < 4096)


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors, and the file's own remarks (`__metadata__`).

    Raises:
        SafetensorsFormatError: it ends too early, or is no such file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if 8 + length > size:
            raise SafetensorsFormatError("it ends in the middle of its header: truncated")
        try:
            header = dict(json.loads(file.read(length)))
            remarks = dict(header.pop("__metadata__", None) or {})
        except (ValueError, TypeError) as error:
            raise SafetensorsFormatError(f"its header is no JSON object ({error})") from error
        start = 8 + length
        tensors = {}
        for name, entry in header.items():
            dtype, shape, (first, last) = _checked(name, entry)
            if start + last > size:
                raise SafetensorsFormatError(f"it ends in the middle of {name}: truncated")
            content = torch.empty(last - first, dtype=torch.uint8)
            file.seek(start + first)
            if last > first:
                file.readinto(memoryview(content.numpy()))
            tensors[name] = content.view(dtype).view(shape)
    return tensors, remarks


def _checked(name: str, entry: Any) -> tuple[torch.dtype, list[int], tuple[int, int]]:
    try:
        dtype, shape = DTYPES[entry["dtype"]], [int(n) for n in entry["shape"]]
        first, last = (int(n) for n in entry["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise SafetensorsFormatError(f"its header says nothing usable about {name}") from error
    if first < 0 or last - first != math.prod(shape) * dtype.itemsize or min(shape, default=0) < 0:
        raise SafetensorsFormatError(f"the size of {name} is not that of its shape {shape}")
    return dtype, shape, (first, last)
