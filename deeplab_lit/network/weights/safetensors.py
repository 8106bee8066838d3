"""Safetensors files: 8 bytes with the header's length, the header as JSON, then the numbers.

The format has no checksum. Ours carry one in their remarks, which other readers pass over.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

CHECKSUM = "content_sha256"  # the remark that holds it, as JSON
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
        SafetensorsFormatError: it ends too early, is no such file, or is not as its checksum says.
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
        tensors, places = {}, []
        for name, entry in header.items():
            dtype, shape, (first, last) = _checked(name, entry)
            if start + last > size:
                raise SafetensorsFormatError(f"it ends in the middle of {name}: truncated")
            content = torch.empty(last - first, dtype=torch.uint8)
            file.seek(start + first)
            if last > first:
                file.readinto(memoryview(content.numpy()))
            tensors[name] = content.view(dtype).view(shape)
            places.append((first, last))
    _check_places(sorted(places), size - start)
    if CHECKSUM in remarks and remarks[CHECKSUM] != json.dumps(content_sha256(tensors, remarks)):
        raise SafetensorsFormatError("its content is not what its checksum says: damaged")
    return tensors, remarks


def content_sha256(tensors: dict[str, Tensor], remarks: dict[str, str]) -> str:
    """Return the checksum that files of ours carry, in hexadecimal digits.

    Args:
        tensors: on the CPU.
        remarks: the file's; the checksum itself does not count.
    """
    entries = [[key, value] for key, value in sorted(remarks.items()) if key != CHECKSUM]
    entries += [[key, str(x.dtype), list(x.shape)] for key, x in sorted(tensors.items())]
    digest = hashlib.sha256(json.dumps(entries).encode())
    for _, tensor in sorted(tensors.items()):
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def _check_places(places: list[tuple[int, int]], size: int) -> None:
    """Refuse tensors that overlap, or bytes that belong to none: the format allows neither."""
    end = 0
    for first, last in places:
        if first != end:
            raise SafetensorsFormatError(f"its tensors overlap or leave a gap at byte {first}")
        end = last
    if end != size:
        raise SafetensorsFormatError(f"{size - end} bytes behind its last tensor belong to none")


def _checked(name: str, entry: Any) -> tuple[torch.dtype, list[int], tuple[int, int]]:
    try:
        dtype, shape = DTYPES[entry["dtype"]], [int(n) for n in entry["shape"]]
        first, last = (int(n) for n in entry["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise SafetensorsFormatError(f"its header says nothing usable about {name}") from error
    if first < 0 or last - first != math.prod(shape) * dtype.itemsize or min(shape, default=0) < 0:
        raise SafetensorsFormatError(f"the size of {name} is not that of its shape {shape}")
    return dtype, shape, (first, last)
