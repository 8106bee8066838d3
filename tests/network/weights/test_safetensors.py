"""Safetensors files, written here byte by byte from the format's description."""

import json

import pytest
import torch

from deeplab_lit.network.weights.read import WeightsError, read_weight_file
from deeplab_lit.network.weights.safetensors import CHECKSUM, content_sha256

TENSORS = {
    "weight": torch.randn(2, 3),
    "half": torch.randn(5).half(),
    "brain": torch.randn(4, 1).bfloat16(),
    "counter": torch.tensor(7),
    "flags": torch.tensor([True, False]),
    "none": torch.zeros(0, 3),
}
NAMES = {"weight": "F32", "half": "F16", "brain": "BF16", "counter": "I64", "flags": "BOOL"}


def write(path, tensors=TENSORS, **changes):
    header, body = {"__metadata__": {"note": "ours"}}, b""
    for name, tensor in tensors.items():
        content = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        header[name] = {
            "dtype": NAMES.get(name, "F32"),
            "shape": list(tensor.shape),
            "data_offsets": [len(body), len(body) + len(content)],
        }
        body += content
    header |= changes
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path


@pytest.mark.parametrize("name", ["net.safetensors", "net.pth"])
def test_tensors_of_all_types_and_remarks_are_read(tmp_path, name):
    content = read_weight_file(write(tmp_path / name))
    assert content["metadata"] == {"note": "ours"}
    assert content["state_dict"].keys() == TENSORS.keys()
    for key, tensor in content["state_dict"].items():
        assert tensor.dtype == TENSORS[key].dtype
        assert torch.equal(tensor, TENSORS[key])


def test_every_truncation_is_noticed(tmp_path):
    path = write(tmp_path / "net.safetensors")
    content = path.read_bytes()
    for end in (20, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:end])
        with pytest.raises(WeightsError, match=r"net\.safetensors.*truncated"):
            read_weight_file(path)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]},
        {"dtype": "F4", "shape": [1], "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [1], "data_offsets": [-4, 0]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]},
        {"shape": [1]},
        None,
    ],
    ids=str,
)
def test_a_header_that_contradicts_itself_is_refused(tmp_path, entry):
    path = write(tmp_path / "net.safetensors", {}, odd=entry)
    with pytest.raises(WeightsError, match=r"net\.safetensors.*odd"):
        read_weight_file(path)


def test_tensors_that_overlap_and_bytes_of_none_are_refused(tmp_path):
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    path = write(tmp_path / "net.safetensors", {"a": torch.zeros(1)}, b=entry)
    with pytest.raises(WeightsError, match=r"net\.safetensors.*overlap"):
        read_weight_file(path)
    path = write(tmp_path / "net.safetensors")
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(WeightsError, match=r"net\.safetensors.*1 bytes behind"):
        read_weight_file(path)


def test_a_file_with_a_checksum_is_refused_when_a_bit_is_flipped(tmp_path):
    """But where the flip leaves no checksum, and in spaces of the header."""
    path, remarks = tmp_path / "net.safetensors", {"rates": "[6, 12]"}
    remarks[CHECKSUM] = json.dumps(content_sha256(TENSORS, remarks))
    write(path, __metadata__=remarks)
    whole = path.read_bytes()
    assert all(torch.equal(v, TENSORS[k]) for k, v in read_weight_file(path)["state_dict"].items())
    for place in range(0, len(whole), 3):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            content = read_weight_file(path)
        except WeightsError:
            continue
        assert content["state_dict"].keys() == TENSORS.keys(), place
        assert all(torch.equal(v, TENSORS[k]) for k, v in content["state_dict"].items()), place
        assert content["metadata"]["rates"] == remarks["rates"], place
