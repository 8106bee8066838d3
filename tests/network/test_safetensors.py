"""Safetensors files, written here byte by byte from the format's description."""

import json

import pytest
import torch

from deeplab_lit.network.files import WeightsError, read_weight_file

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
