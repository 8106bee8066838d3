"""Writes .caffemodel bytes: protobuf messages by field number, as Caffe's own library would."""

import struct

import torch


def varint(number):
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def message(number, content):
    return varint(number << 3 | 2) + varint(len(content)) + content


def integer(number, value):
    return varint(number << 3) + varint(value)


def numbers(field, values, *, packed=True, double=False):
    code = "d" if double else "f"
    if packed:
        return message(field, struct.pack(f"<{len(values)}{code}", *values))
    tag = varint(field << 3 | (1 if double else 5))
    return b"".join(tag + struct.pack(f"<{code}", value) for value in values)


def blob(tensor, *, packed=True, double=False, legacy=False, packed_shape=True):
    """A BlobProto; `legacy`: num, channels, height, width instead of a shape."""
    if legacy:
        sizes = [1] * (4 - tensor.ndim) + list(tensor.shape)
        shape = b"".join(integer(i, size) for i, size in enumerate(sizes, start=1))
    elif packed_shape:
        shape = message(7, message(1, b"".join(map(varint, tensor.shape))))
    else:
        shape = message(7, b"".join(integer(1, size) for size in tensor.shape))
    if packed and not double:
        return shape + message(5, tensor.contiguous().numpy().astype("<f4").tobytes())
    values = tensor.flatten().tolist()
    return shape + numbers(8 if double else 5, values, packed=packed, double=double)


def layer(name, blobs, *, type="Convolution", **options):
    """A LayerParameter as field 100, with a few of the other fields that real files have."""
    content = message(1, name.encode()) + message(2, type.encode()) + message(3, b"bottom")
    content += integer(10, 0)  # phase
    content += b"".join(message(7, blob(tensor, **options)) for tensor in blobs)
    return message(100, content + message(106, integer(1, 64)))


def old_layer(name, blobs, **options):
    """A V1LayerParameter as field 2: blobs stand in front of nothing in particular."""
    content = message(2, b"bottom") + message(4, name.encode()) + integer(5, 4)
    content += b"".join(message(6, blob(tensor, legacy=True, **options)) for tensor in blobs)
    return message(2, content)


def write_caffemodel(path, layers, **options):
    """layers: name → blobs."""
    parts = [message(1, b"a net"), layer("data", [], type="ImageSegData")]
    parts += [layer(name, blobs, **options) for name, blobs in layers.items()]
    path.write_bytes(b"".join(parts))
    return path


def random_blob(*shape):
    return torch.randn(shape)
