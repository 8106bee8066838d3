"""Weight files are told by their content; what is none is refused in a sentence with its name."""

import json
import os
import pickle
import struct
import warnings
import zipfile
from collections import OrderedDict

import pytest
import torch
from caffe_writer import write_caffemodel

from deeplab_lit.network.weights.read import (
    CHECKSUM,
    WeightsError,
    content_sha256,
    read_weight_file,
    sha256_of,
)

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.zeros(2)}


def save(content, path):
    torch.save(content, path)


def same(state):
    return state.keys() == STATE.keys() and all(torch.equal(state[k], STATE[k]) for k in STATE)


@pytest.mark.parametrize("new_container", [True, False])
@pytest.mark.parametrize("name", ["model.pth", "model.ckpt", "model", "model.caffe"])
def test_pytorch_files_of_both_containers_are_read_whatever_their_name(
    tmp_path, new_container, name
):
    path = tmp_path / name
    torch.save(STATE, path, _use_new_zipfile_serialization=new_container)
    assert same(read_weight_file(path))
    assert same(read_weight_file(str(path)))


@pytest.mark.parametrize("name", ["net.caffemodel", "net.pth"])
def test_caffes_files_are_read_whatever_their_name(tmp_path, name):
    path = write_caffemodel(tmp_path / name, {"fc": [STATE["a.weight"], STATE["a.bias"]]})
    state = read_weight_file(path)["state_dict"]
    assert torch.equal(state["fc/0"], STATE["a.weight"])


def missing(path):
    pass


def empty(path):
    path.write_bytes(b"")


def truncated(path):
    save({"a": torch.randn(1000)}, path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def truncated_old_container(path):
    torch.save({"a": torch.randn(1000)}, path, _use_new_zipfile_serialization=False)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def truncated_caffemodel(path):
    write_caffemodel(path, {"conv1": [torch.randn(100)], "conv2": [torch.randn(100)]})
    path.write_bytes(path.read_bytes()[:-30])


def web_page(path):
    path.write_text("\n<!DOCTYPE html>\n<html><body>404</body></html>")


def lfs_pointer(path):
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 178\n")


def release_archive(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("deeplab/train.prototxt", "layer {}")
        archive.writestr("deeplab/train2_iter_20000.caffemodel", b"\x0a\x00")


def gzip(path):
    path.write_bytes(b"\x1f\x8b\x08\x00" + bytes(100))


def tensorflow(path):
    path.write_bytes(bytes(200) + struct.pack("<Q", 0xDB4775248B80FB57))


def tensorflow_list(path):
    path.write_text('model_checkpoint_path: "deeplab_resnet.ckpt"\n')


def text(path):
    path.write_text("oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393")


def a_list(path):
    save([torch.zeros(2)], path)


def names_that_are_numbers(path):
    save({0: torch.zeros(2), 1: torch.zeros(3)}, path)


def folder(path):
    path.mkdir()


REASONS = {
    missing: "no such file",
    folder: "is a folder, .* none is in it",
    empty: "empty",
    truncated: "truncated",
    truncated_old_container: "truncated",
    truncated_caffemodel: "truncated",
    web_page: "web page",
    lfs_pointer: "git lfs pull",
    release_archive: r"unpack it.*train2_iter_20000\.caffemodel",
    gzip: "unpack it",
    tensorflow: "TensorFlow",
    tensorflow_list: "TensorFlow",
    text: "not a weight file",
    a_list: "holds a list",
    names_that_are_numbers: "expected names and tensors",
}


@pytest.mark.parametrize("write", REASONS)
def test_what_is_no_weight_file_is_refused_with_its_name_and_the_reason(tmp_path, write):
    path = tmp_path / "model.pth"
    write(path)
    with pytest.raises(WeightsError, match=REASONS[write]) as error:
        read_weight_file(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "deeplabv1_resnet101-imagnet.pth",
            r"did you mean .*/deeplabv1_resnet101-imagenet\.pth\?$",
        ),
        (
            "other.ckpt",
            r"expected a weight file \(.*\); in .* there is a\.ckpt, deeplabv1_.*\.pth$",
        ),
        ("folder/other.ckpt", r"no such file, nor a folder .*/folder: expected a weight file"),
    ],
)
def test_where_no_file_is_the_nearest_are_named(tmp_path, name, said):
    for there in ("deeplabv1_resnet101-imagenet.pth", "a.ckpt", "other.yaml"):
        (tmp_path / there).touch()
    with pytest.raises(WeightsError, match=said):
        read_weight_file(tmp_path / name)


def test_of_a_folder_the_weight_files_in_it_are_named(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    for name in ("checkpoints/best.ckpt", "config.yaml"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(WeightsError, match=r"is a folder, .* like checkpoints/best\.ckpt$"):
        read_weight_file(tmp_path)


@pytest.mark.parametrize(
    "name", ["deeplab_resnet.ckpt.data-00000-of-00001", "deeplab_resnet.ckpt.meta"]
)
def test_the_other_files_of_a_tensorflow_checkpoint_are_known_by_their_names(tmp_path, name):
    (tmp_path / name).write_bytes(bytes(100))
    with pytest.raises(WeightsError, match=r"TensorFlow.*\.caffemodel"):
        read_weight_file(tmp_path / name)


def test_a_prototxt_is_not_the_weights(tmp_path):
    (tmp_path / "train.prototxt").write_text('name: "net"\n')
    with pytest.raises(WeightsError, match=r"a \.caffemodel beside it"):
        read_weight_file(tmp_path / "train.prototxt")


def is_same(one, other):
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(is_same(one[k], other[k]) for k in one)
    return one == other


def test_a_flipped_bit_is_refused_or_changes_nothing(tmp_path):
    """In every part of the file: records, their headers, the pickle, the directory at the end."""
    path, refused = tmp_path / "model.ckpt", 0
    content = {"state_dict": STATE, "lr": 0.1}
    torch.save(content, path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 5):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        try:
            assert is_same(read_weight_file(path), content), f"byte {place}"
        except WeightsError as error:
            assert str(path) in str(error)  # noqa: PT017
            refused += 1
    assert refused > len(whole) / 5 / 3  # the rest are dates and padding


def test_the_damaged_record_of_a_checkpoint_is_named(tmp_path):
    path = tmp_path / "model.ckpt"
    torch.save(STATE, path)
    content = path.read_bytes()
    numbers = STATE["a.weight"].numpy().tobytes()
    assert content.count(numbers) == 1
    path.write_bytes(content.replace(numbers, numbers[::-1]))
    with pytest.raises(WeightsError, match=r"model\.ckpt is damaged: its record model/data/0 "):
        read_weight_file(path)


def test_a_record_marked_as_a_folder_is_damage(tmp_path):
    """torch takes it for empty and leaves the numbers undefined."""
    path = tmp_path / "model.ckpt"
    torch.save(STATE, path)
    content = bytearray(path.read_bytes())
    entry = content.rindex(b"model/data/0") - 46  # the directory's; its attributes are at 38
    assert content[entry : entry + 4] == b"PK\x01\x02"
    content[entry + 38] |= 0x10
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"damaged: its record model/data/0 "):
        read_weight_file(path)


def test_a_file_written_without_checksums_is_read_and_that_is_said(tmp_path):
    path = tmp_path / "model.pth"
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(STATE, path)
    finally:
        torch.serialization.set_crc32_options(True)
    with pytest.warns(UserWarning, match=r"model\.pth was saved without checksums"):
        assert same(read_weight_file(path))


def test_a_file_of_the_old_container_is_compared_with_the_hash_in_its_name(tmp_path):
    path = tmp_path / "model.pth"
    torch.save(STATE, path, _use_new_zipfile_serialization=False)
    right = path.with_name(f"model-{sha256_of(path)[:8]}.pth")
    wrong = path.with_name("model-5d3b4d8f.pth")
    right.write_bytes(path.read_bytes())
    wrong.write_bytes(path.read_bytes())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert same(read_weight_file(right))
    with pytest.warns(UserWarning, match=f"begins with 5d3b4d8f, but .* {sha256_of(path)[:8]}"):
        assert same(read_weight_file(wrong))


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def save_pickle(content, path):
    path.write_bytes(pickle.dumps(content, protocol=2))


@pytest.mark.parametrize("write", [save, save_pickle])
def test_code_in_a_file_is_refused_and_not_run(tmp_path, write):
    path, mark = tmp_path / "model.pth", tmp_path / "was_here"
    write({"state_dict": Trap(str(mark))}, path)
    with pytest.raises(WeightsError, match=r"\(\w+\.mkdir\), which is not executed") as error:
        read_weight_file(path)
    assert str(path) in str(error.value)
    assert not mark.exists()
    if write is save:  # the trap does work
        torch.load(path, weights_only=False)
    else:
        pickle.loads(path.read_bytes())
    assert mark.exists()


def short(word):
    """A byte string of Python 2."""
    return b"U" + bytes([len(word)]) + word.encode()


def test_a_file_of_python_2_and_torch_0_2_is_read(tmp_path):
    """isht7's and AdaptSegNet's: byte strings for names, tensors of the first kind."""
    header = [pickle.dumps(n, protocol=2) for n in (0x1950A86A20F9469CFC6C, 1001)]
    system = b"\x80\x02}" + short("little_endian") + b"\x88s."
    storage = b"(" + short("storage") + b"ctorch\nFloatStorage\n" + short("1") + short("cpu")
    tensor = b"ctorch._utils\n_rebuild_tensor\n((" + storage[1:] + b"K\x06NtQ"
    tensor += b"K\x00K\x02K\x03\x86K\x03K\x01\x86tR"
    state = b"\x80\x02ccollections\nOrderedDict\n](](" + short("a.weight") + tensor + b"ee\x85R."
    values = pickle.dumps(["1"], protocol=2) + struct.pack("<q6f", 6, *range(6))
    (tmp_path / "old.pth").write_bytes(b"".join(header) + system + state + values)
    content = read_weight_file(tmp_path / "old.pth")
    assert isinstance(content, OrderedDict)
    assert torch.equal(content["a.weight"], STATE["a.weight"])


TENSORS = {
    "weight": torch.randn(2, 3),
    "half": torch.randn(5).half(),
    "brain": torch.randn(4, 1).bfloat16(),
    "counter": torch.tensor(7),
    "flags": torch.tensor([True, False]),
    "none": torch.zeros(0, 3),
}
NAMES = {"weight": "F32", "half": "F16", "brain": "BF16", "counter": "I64", "flags": "BOOL"}


def write_safetensors(path, tensors=TENSORS, **changes):
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
    content = read_weight_file(write_safetensors(tmp_path / name))
    assert content["metadata"] == {"note": "ours"}
    assert content["state_dict"].keys() == TENSORS.keys()
    for key, tensor in content["state_dict"].items():
        assert tensor.dtype == TENSORS[key].dtype
        assert torch.equal(tensor, TENSORS[key])


def test_every_truncation_is_noticed(tmp_path):
    path = write_safetensors(tmp_path / "net.safetensors")
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
    path = write_safetensors(tmp_path / "net.safetensors", {}, odd=entry)
    with pytest.raises(WeightsError, match=r"net\.safetensors cannot be read: .* damaged \(.+\)"):
        read_weight_file(path)


def test_tensors_that_overlap_and_bytes_of_none_are_refused(tmp_path):
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
    path = write_safetensors(tmp_path / "net.safetensors", {"a": torch.zeros(1)}, b=entry)
    with pytest.raises(WeightsError, match=r"net\.safetensors.*damaged.*tensor `[ab]`"):
        read_weight_file(path)
    path = write_safetensors(tmp_path / "net.safetensors")
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(WeightsError, match=r"net\.safetensors.*damaged.*not fully covered"):
        read_weight_file(path)


def test_a_file_with_a_checksum_is_refused_when_a_bit_is_flipped(tmp_path):
    """But where the flip leaves no checksum, and in spaces of the header."""
    path, remarks = tmp_path / "net.safetensors", {"rates": "[6, 12]"}
    remarks[CHECKSUM] = json.dumps(content_sha256(TENSORS, remarks))
    write_safetensors(path, __metadata__=remarks)
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
