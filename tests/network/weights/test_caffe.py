"""Protobuf by field number: every way in which Caffe's files hold their numbers."""

import struct

import pytest
import torch
from caffe_writer import blob, layer, message, numbers, old_layer, varint, write_caffemodel

from deeplab_lit.network.weights.caffe import CaffeFormatError, read_caffemodel

WEIGHT, BIAS = torch.randn(4, 3, 2, 2), torch.randn(4)


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("double", [True, False])
@pytest.mark.parametrize("shape", ["packed", "unpacked", "legacy"])
def test_every_way_to_write_a_blob_gives_the_same_tensor(tmp_path, packed, double, shape):
    options = {"packed": packed, "double": double, "legacy": shape == "legacy"}
    options["packed_shape"] = shape == "packed"
    path = write_caffemodel(tmp_path / "net.caffemodel", {"conv1": [WEIGHT, BIAS]}, **options)
    state = read_caffemodel(path)
    assert list(state) == ["conv1/0", "conv1/1"]
    assert torch.equal(state["conv1/0"], WEIGHT)
    assert state["conv1/1"].dtype == torch.float32
    assert torch.equal(state["conv1/1"].flatten(), BIAS)
    assert state["conv1/1"].shape == ((1, 1, 1, 4) if shape == "legacy" else (4,))


def test_layers_of_old_networks_are_read_too(tmp_path):
    path = tmp_path / "vgg16_20M.caffemodel"
    path.write_bytes(message(1, b"vgg") + old_layer("fc6_1", [WEIGHT, BIAS]) + old_layer("r", []))
    state = read_caffemodel(path)
    assert torch.equal(state["fc6_1/0"], WEIGHT)
    assert state["fc6_1/1"].shape == (1, 1, 1, 4)


def test_values_in_front_of_the_shape_and_gradients_do_no_harm(tmp_path):
    data, gradient = numbers(5, [1.0, 2.0, 3.0], packed=False), numbers(6, [9.0, 9.0, 9.0])
    content = data + gradient + message(7, message(1, varint(3)))
    path = tmp_path / "net.caffemodel"
    path.write_bytes(message(100, message(7, content) + message(1, b"fc")))
    assert read_caffemodel(path)["fc/0"].tolist() == [1, 2, 3]


def test_packed_values_in_several_pieces_are_joined(tmp_path):
    content = numbers(5, [1.0, 2.0]) + message(7, message(1, varint(3))) + numbers(5, [3.0])
    path = tmp_path / "net.caffemodel"
    path.write_bytes(message(100, message(1, b"fc") + message(7, content)))
    assert read_caffemodel(path)["fc/0"].tolist() == [1, 2, 3]


def test_every_truncation_is_noticed(tmp_path):
    path = write_caffemodel(tmp_path / "net.caffemodel", {"conv1": [WEIGHT], "conv2": [BIAS]})
    content = path.read_bytes()
    last = len(content) - len(layer("conv2", [BIAS]))
    for end in range(last + 1, len(content)):
        path.write_bytes(content[:end])
        with pytest.raises(CaffeFormatError, match="truncated"):
            read_caffemodel(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\xff" * 40, "64 bits"),
        (b"name: 'net'", "no protobuf message"),
        (message(1, b"net"), "no layer with weights"),
        (message(100, message(7, blob(BIAS))), "without a name"),
        (layer("fc", [BIAS]) + layer("fc", [BIAS]), "two layers named fc"),
        (message(100, message(1, b"a") + message(7, numbers(5, [1.0]) + b"\x08\x02")), "1 values"),
        (message(100, message(1, b"a") + message(7, message(5, b"123"))), "no whole number"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_bytes_are_refused_with_the_reason(tmp_path, content, reason):
    path = tmp_path / "net.caffemodel"
    path.write_bytes(content)
    with pytest.raises(CaffeFormatError, match=reason):
        read_caffemodel(path)


def test_unpacked_floats_that_hold_their_own_tag_are_not_taken_for_it(tmp_path):
    """0x2d, the tag of an unpacked float, is a byte like any other inside the numbers."""
    tricky = struct.unpack("<f", b"\x2d\x2d\x2d\x2d")[0]
    content = numbers(5, [tricky, 1.0, tricky], packed=False) + b"\x08\x03"
    path = tmp_path / "net.caffemodel"
    path.write_bytes(message(100, message(1, b"fc") + message(7, content)))
    assert read_caffemodel(path)["fc/0"].flatten().tolist() == [tricky, 1, tricky]
