import builtins
import io
import os
import pickle
import re
import zipfile

import numpy as np
import pytest
import torch

from deeplab_lit.data.image import DataError
from deeplab_lit.data.npy_files import read_npy, read_npz

HEADER = b"{'descr': '|O', 'fortran_order': False, 'shape': (), }"


def npy_of(pickled):
    """A .npy file whose content is this pickle, as np.save writes it."""
    return b"\x93NUMPY\x01\x00" + len(HEADER).to_bytes(2, "little") + HEADER + pickled


def pickled_array(content, protocol=4):
    array = np.empty((), object)
    array[()] = content
    return pickle.dumps(array, protocol)


@pytest.fixture
def refusal(tmp_path):
    """The sentence in which a file of these bytes is refused."""

    def read(data, name="a.npy"):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(DataError) as caught:
            (read_npz if name.endswith("npz") else read_npy)(path)
        sentence = str(caught.value)
        assert sentence.startswith(str(path))
        assert "\n" not in sentence
        return sentence

    return read


@pytest.fixture
def content():
    labels = torch.nonzero(torch.tensor([0, 1, 0, 1]))[:, 0]  # as IRN finds them: a view
    return {
        "keys": labels,
        "cam": torch.rand(20, 3, 4)[labels],
        "high_res": np.random.default_rng(0).random((2, 9, 12), np.float32),
        "half": torch.rand(4, 6).half().t()[1:3],
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "big_endian": np.arange(3, dtype=">i4"),
        "none": torch.zeros(0, 4, 5),
        "one": torch.tensor(2.5),
        "number": np.float32(3),
    }


@pytest.mark.parametrize("protocol", range(5))
@pytest.mark.parametrize("numpy_module", ["numpy._core", "numpy.core"])
def test_dictionaries_of_tensors_and_arrays_are_read(tmp_path, content, protocol, numpy_module):
    pickled = pickled_array(content, protocol)
    path = tmp_path / "a.npy"
    if numpy_module == "numpy.core" and protocol < 4:  # as NumPy 1 names it; a name's length is
        pickled = pickled.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")  # not told
    path.write_bytes(npy_of(pickled))
    read = read_npy(path)
    assert list(read) == list(content)
    for name, expected in content.items():
        expected = np.asarray(expected)
        np.testing.assert_array_equal(read[name], expected)
        assert name == "number" or read[name].dtype == expected.dtype, name


def test_what_np_save_writes_of_a_dictionary_is_what_is_read(tmp_path, content):
    np.save(tmp_path / "a.npy", content)
    read = read_npy(tmp_path / "a.npy")
    both = np.load(tmp_path / "a.npy", allow_pickle=True).item()
    for name, expected in both.items():
        np.testing.assert_array_equal(read[name], np.asarray(expected))


def test_plain_arrays_are_read(tmp_path):
    for array in (np.arange(6, dtype=np.uint8).reshape(2, 3), np.asfortranarray(np.eye(3))):
        np.save(tmp_path / "a.npy", array)
        np.testing.assert_array_equal(read_npy(tmp_path / "a.npy"), array)
    np.savez_compressed(tmp_path / "a.npz", one=np.eye(2), two=np.arange(3))
    read = read_npz(tmp_path / "a.npz")
    np.testing.assert_array_equal(read["two"], np.arange(3))
    assert list(read) == ["one", "two"]


class Call:
    """Pickled as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def by_name(module, name, *rest):
    """A pickle that names a function in protocol 0, and goes on with `rest`."""
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n" + b"".join(rest) + b"."


@pytest.mark.parametrize(
    ("function", "arguments", "name"),
    [
        (os.system, ("touch executed",), "system"),
        (builtins.eval, ("open('executed', 'w')",), r"builtins\.eval"),
        (builtins.getattr, ("", "join"), r"builtins\.getattr"),
        (torch.load, ("a.npy",), r"torch\.\S*load"),
        (np.load, ("a.npy",), r"numpy.*load"),
        (pickle.loads, (b"x",), "loads"),
        (bytearray, (10**12,), r"builtins\.bytearray"),
    ],
)
@pytest.mark.parametrize("place", ["alone", "value", "key", "in a storage"])
def test_a_pickle_that_calls_a_function_calls_none(
    refusal, tmp_path, monkeypatch, function, arguments, name, place
):
    monkeypatch.chdir(tmp_path)
    call = Call(function, *arguments)
    if place == "alone":
        pickled = pickle.dumps(call)
    elif place == "in a storage":
        stored = Call(torch.storage._load_from_bytes, pickle.dumps(call))
        pickled = pickled_array({"keys": stored})
    else:
        pickled = pickled_array({"keys": call} if place == "value" else {call: 1})
    assert re.search(f"asks for .*{name}, which is not allowed", refusal(npy_of(pickled)))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    "pickled",
    [
        by_name("numpy.core.multiarray", "_reconstruct", b"(dS'x'\nK\x01sb"),  # BUILD: a state
        by_name("numpy.core.multiarray", "_reconstruct", b"N}S'__code__'\nNs\x86b"),  # its code
        by_name("numpy", "dtype", b"(S'O8'\ntR(I3\nS'|'\ntb"),
        by_name("numpy", "dtype", b"(S'V99999999999'\ntR"),
        by_name("numpy", "ndarray", b"(I1000000000000\ntR"),  # REDUCE
        by_name("numpy", "ndarray", b")\x81"),  # NEWOBJ
        by_name("numpy.core.multiarray", "_reconstruct", b")\x81"),
        by_name("torch", "FloatStorage", b"(I1000000000000\ntR"),
        by_name("torch.storage", "_load_from_bytes", b"(S'PK'\ntR"),
        by_name("_codecs", "encode", b"(S'x'\nS'rot13'\ntR"),
        by_name("torch._utils", "_rebuild_tensor_v2", b"(NI0\n(tN(tI00\nNtR"),
        b"Pid\n.",  # a persistent id
        b"\x82\x01.",  # the registry of extensions
        b"I1\n.",
        b"0.",
        b"",
        b"not a pickle",
    ],
)
def test_a_pickle_that_is_built_by_hand_ends_in_a_sentence(refusal, pickled):
    refusal(npy_of(pickled))


def test_claims_of_a_huge_size_take_no_memory(refusal):
    huge = b"{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 1000000), }"
    start = b"\x93NUMPY\x01\x00" + len(huge).to_bytes(2, "little") + huge
    assert "0 bytes for (1000000, 1000000)" in refusal(start)

    array = pickled_array({"maps": np.zeros((2, 3), np.float32)}, 2)
    shape = b"K\x02K\x03\x86"
    assert array.count(shape) == 1
    claims = array.replace(shape, b"\x8a\x06" + (10**12).to_bytes(6, "little") + b"K\x03\x86")
    assert "for (1000000000000, 3) of float32" in refusal(npy_of(claims))

    tensor = pickled_array({"maps": torch.zeros(1).expand(10**6, 10**6)})  # strides of 0
    assert "a tensor of (1000000, 1000000) with 1 values" in refusal(npy_of(tensor))

    # a place among the kept objects, for which Python would set room aside
    assert "claims to keep 4,000,000,000" in refusal(
        npy_of(b"}r" + (4 * 10**9).to_bytes(4, "little") + b".")
    )
    assert "expected 1000000000000 bytes" in refusal(
        npy_of(b"\x8e" + (10**12).to_bytes(8, "little") + b"x.")
    )
    assert "claims to keep 4,000,000,000" in refusal(npy_of(b"}p4000000000\n."))


@pytest.mark.parametrize(
    ("pickled", "why"),
    [
        (b"})" + b"\x85" * 10**6 + b"Ns.", "more than 200 parts"),  # too deep for the stack
        (b"}K\x01" + b"2\x86" * 60 + b"Ns.", "more than 200 parts"),  # 2⁶⁰ parts to hash
        (b"}K\x01" + b"q\x00h\x00\x86" * 60 + b"Ns.", "more than 200 parts"),
        (b"}K\x01" + b"2\x86}b(e(u" * 60 + b"Ns.", "more than 200 parts"),  # "changed" between
        (b"K\x010" * 60_000 + b"K\x01.", "more than 100,000 steps"),
    ],
)
def test_few_steps_that_take_years_are_not_run(refusal, pickled, why):
    assert why in refusal(npy_of(pickled))


def test_lists_of_lists_of_lists_are_not_written_into_a_message(refusal):
    many = b"]" + b"q\xf00]h\xf0ah\xf0a" * 40  # 2⁴⁰ lists, whose text would be longer still
    array = pickled_array({"maps": np.zeros((2, 3), np.float32)}, 2)
    assert "shape" in refusal(npy_of(array.replace(b"K\x02K\x03\x86", many)))
    assert "arrays of list" in refusal(npy_of(by_name("numpy", "dtype", many, b"\x85R")))


def test_bytes_that_are_asked_for_again_and_again_take_no_memory(refusal):
    text = b"X" + (10**6).to_bytes(4, "little") + b"x" * 10**6
    start = b"}c_codecs\nencode\nq\x01" + text + b"q\x02X\x06\x00\x00\x00latin1\x86R"
    again = b"h\x01h\x02X\x06\x00\x00\x00latin1\x86R"
    assert "again and again" in refusal(npy_of(start + again * 5000 + b"."))

    storage = pickle.dumps(torch.zeros(10)._typed_storage())  # that asks for another storage
    inner = pickle.dumps(Call(torch.storage._load_from_bytes, storage))
    nested = pickled_array({"maps": Call(torch.storage._load_from_bytes, inner)})
    assert "_load_from_bytes, which is not allowed" in refusal(npy_of(nested))


@pytest.mark.parametrize(
    "header",
    [b"(" * 5000, b"-" * 9000 + b"1", b"{'descr': '<f4', 'fortran_order': False, 'shape': (1L,"],
)
def test_headers_that_are_no_dictionary_end_in_a_short_sentence(refusal, header):
    start = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    assert len(refusal(start)) < 600


def test_texts_that_are_none_are_refused(refusal):
    odd = pickled_array({"name": np.str_("a")}).replace(b"a\x00\x00\x00", b"\xff" * 4)
    assert "characters that are none" in refusal(npy_of(odd))


def test_a_tensor_reads_no_memory_but_its_storage(refusal, monkeypatch):
    def tensor(offset, size, stride):
        storage = torch.arange(6.0)._typed_storage()
        return Call(torch._utils._rebuild_tensor_v2, storage, offset, size, stride, False, None)

    for odd in [(3, (4,), (1,)), (0, (2,), (6,)), (-1, (2,), (1,)), (0, (2,), (-1,)), (0, 3, 4)]:
        assert "a tensor" in refusal(npy_of(pickled_array({"maps": tensor(*odd)})))


def test_archives_that_are_no_archives_of_arrays_are_refused(refusal, monkeypatch):
    refusal(b"PK\x03\x04 and no more", "a.npz")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", npy_of(pickle.dumps(Call(os.system, "touch executed"))))
    assert "system, which is not allowed" in refusal(file.getvalue(), "a.npz")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.npy", npy_of(b"}."))
        archive.writestr("b.npy", npy_of(b"}."))
    twice = file.getvalue().replace(b"b.npy", b"a.npy")
    assert "the same name" in refusal(twice, "a.npz")
    monkeypatch.setattr("deeplab_lit.data.npy_files.MOST_BYTES", 100)
    file = io.BytesIO()
    np.savez_compressed(file, zeros=np.zeros(1000))
    assert "more than 100 bytes" in refusal(file.getvalue(), "a.npz")


def test_a_missing_file_and_other_contents_are_named(tmp_path, refusal):
    with pytest.raises(DataError, match=r"gone\.npy does not exist"):
        read_npy(tmp_path / "gone.npy")
    assert "not of a dictionary" in refusal(npy_of(pickled_array([1, 2])))
    assert "'a' is neither an array nor a number" in refusal(npy_of(pickled_array({"a": [1]})))
    assert "array of objects" in refusal(npy_of(pickle.dumps(np.array([{}, {}], object))))
    refusal(b"\x89PNG")
