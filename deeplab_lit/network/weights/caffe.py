"""Caffe's .caffemodel files, read without Caffe: protobuf messages, by field number.

Of caffe.proto (in the authors' and in Berkeley's Caffe alike) only this is read:

- NetParameter: layer = 100, or in files from before 2015 layers = 2
- LayerParameter: name = 1, blobs = 7; V1LayerParameter: name = 4, blobs = 6
- BlobProto: data = 5 (float), double_data = 8, each packed or one by one; shape = 7 (BlobShape:
  dim = 1), before that num = 1, channels = 2, height = 3, width = 4
"""

import math
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # protobuf's wire types
LAYERS = {100: (1, 7), 2: (4, 6)}  # field of the layer → fields of its name and its blobs
NUMBERS = {5: torch.float32, 8: torch.float64}  # fields of the values → what they are


class CaffeFormatError(ValueError):
    """The bytes are no .caffemodel; says where and why."""


class _Field(NamedTuple):
    number: int
    wire: int
    value: int  # of a varint; else the length in bytes
    start: int  # where the value begins


def read_caffemodel(path: Path) -> dict[str, Tensor]:
    """Read the weights of a .caffemodel.

    Numbers go from the file straight to where they stay, so memory holds them once.

    Args:
        path: the file.

    Returns:
        "<layer>/<index of the blob>" → float32, in the file's order; layers without weights are
        left out.

    Raises:
        CaffeFormatError: it ends too early, or is no such file.
    """
    blobs: dict[str, Tensor] = {}
    with path.open("rb") as file:
        for layer in _fields(file, path.stat().st_size, "the network"):
            if layer.number not in LAYERS or layer.wire != BYTES:
                continue
            for index, (name, blob) in enumerate(_layer(file, layer)):
                if f"{name}/{index}" in blobs:
                    raise CaffeFormatError(f"it has two layers named {name}")
                blobs[f"{name}/{index}"] = blob
    if not blobs:
        raise CaffeFormatError("it holds no layer with weights")
    return blobs


def _layer(file: BufferedReader, layer: _Field) -> list[tuple[str, Tensor]]:
    """Read a layer: its name with each of its blobs."""
    name_field, blob_field = LAYERS[layer.number]
    name = ""
    blobs: list[Tensor] = []
    for field in _fields(file, layer.start + layer.value, "a layer"):
        if field.number == name_field and field.wire == BYTES:
            name = file.read(field.value).decode(errors="replace")
        elif field.number == blob_field and field.wire == BYTES:
            blobs.append(_blob(file, field))
    if blobs and not name:
        raise CaffeFormatError("it has a layer without a name")
    return [(name, blob) for blob in blobs]


def _blob(file: BufferedReader, blob: _Field) -> Tensor:
    """Read an array of numbers, as float32."""
    end = blob.start + blob.value
    shape: list[int] | None = None
    legacy: dict[int, int] = {}
    values = []
    for field in _fields(file, end, "a blob"):
        if field.number == 7 and field.wire == BYTES:
            shape = _shape(file, field)
        elif field.number <= 4 and field.wire == VARINT:
            legacy[field.number] = field.value
        elif field.number in NUMBERS:
            values.append(_numbers(file, field, end))
    data = values[0] if len(values) == 1 else torch.cat(values or [torch.empty(0)])
    if shape is None:
        shape = [legacy.get(i, 1) for i in (1, 2, 3, 4)] if legacy else [data.numel()]
    if math.prod(shape) != data.numel():
        raise CaffeFormatError(f"a blob of shape {shape} has {data.numel()} values")
    return data.view(shape)


def _shape(file: BufferedReader, shape: _Field) -> list[int]:
    """Read the sizes of a blob."""
    dims = []
    for field in _fields(file, shape.start + shape.value, "a shape"):
        if field.number != 1:
            continue
        if field.wire == VARINT:
            dims.append(field.value)
        while file.tell() < field.start + field.value and field.wire == BYTES:
            dims.append(_varint(file))
    return dims


def _numbers(file: BufferedReader, field: _Field, end: int) -> Tensor:
    """Read packed values; or all that follow one by one, each behind the same one-byte tag."""
    dtype = NUMBERS[field.number]
    size = dtype.itemsize
    if field.wire == BYTES:
        if field.value % size:
            raise CaffeFormatError(f"{field.value} bytes are no whole number of values")
        return _read(file, field.value).view(dtype).float()
    if field.wire not in (FIXED32, FIXED64) or field.value != size:
        raise CaffeFormatError(f"values of wire type {field.wire} in field {field.number}")
    file.seek(field.start - 1)
    number = (end - field.start + 1) // (size + 1)
    rows = _read(file, number * (size + 1)).view(number, size + 1)
    others = (rows[:, 0] != rows[0, 0]).nonzero()
    if len(others):
        number = int(others[0])
        file.seek(field.start - 1 + number * (size + 1))
    return rows[:number, 1:].contiguous().view(dtype).flatten().float()


def _read(file: BufferedReader, size: int) -> Tensor:
    """Read so many bytes, straight into a tensor."""
    content = torch.empty(size, dtype=torch.uint8)
    if size and file.readinto(content.numpy().data) < size:
        raise CaffeFormatError("it ends in the middle of a blob: truncated")
    return content


def _fields(file: BufferedReader, end: int, what: str) -> Iterator[_Field]:
    """Yield the fields of a message, with the file at the field's value; end behind the message."""
    while file.tell() < end:
        tag = _varint(file)
        number, wire = tag >> 3, tag & 7
        if number == 0 or wire not in (VARINT, FIXED64, BYTES, FIXED32):
            raise CaffeFormatError(f"{what} has a field that no protobuf message has")
        sizes = {FIXED64: 8, FIXED32: 4}
        value = sizes[wire] if wire in sizes else _varint(file)
        start = file.tell()
        after = start if wire == VARINT else start + value
        if after > end:
            raise CaffeFormatError(f"it ends in the middle of {what}: truncated, or no .caffemodel")
        yield _Field(number, wire, value, start)
        file.seek(max(after, file.tell()))


def _varint(file: BufferedReader) -> int:
    """Read an integer of variable length, seven bits a byte."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise CaffeFormatError("it ends in the middle of a number: truncated")
        value |= (byte[0] & 127) << shift
        if byte[0] < 128:
            return value
    raise CaffeFormatError("it has a number of more than 64 bits")
