"""Weight files of any container: PyTorch's, safetensors, Caffe's. Nothing in them is executed.

What can be checked is: every record of PyTorch's container of today (a zip) has a CRC-32, and a
safetensors file that `export` wrote has a SHA-256 of its own. PyTorch's older container, other
safetensors files and .caffemodel files hold no checksum: a flipped bit in their numbers is another
number, and only comparing the file's SHA-256 with its publisher's can tell.
"""

import hashlib
import json
import re
import warnings
import zipfile
from difflib import get_close_matches
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from deeplab_lit.errors import UserError
from deeplab_lit.network.weights.caffe import CaffeFormatError, read_caffemodel
from deeplab_lit.progress_bar import digest_of
from deeplab_lit.text import first_few

SUFFIXES = (".caffemodel", ".pth", ".ckpt", ".safetensors")
HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.\w+$")  # as torch.hub has it: net-5d3b4d8f.pth
CHECKSUM = "content_sha256"  # the entry of a safetensors file's metadata that holds it, as JSON
MAX_HEADER = 100_000_000  # bytes, as in the format's own reader
AGAIN = "Delete it and fetch it again"
TENSORFLOW = b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"  # the end of a TensorFlow checkpoint's table


class WeightsError(UserError, ValueError):
    """A weight file cannot be had, read, or used; says which, why and what to do."""


class MissingWeights(WeightsError):
    """There is no weight file at a path; says which there are."""


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    return digest_of(Path(path).expanduser())


def read_weight_file(path: str | Path) -> dict[str, Any]:
    """Read a weight file of any container, told by its content, not by its name.

    Args:
        path: the file.

    Returns:
        Of a PyTorch file its dictionary, checkpoint or plain state dict; of the others
        {"state_dict": names → tensors}, with safetensors' metadata as "metadata". A .caffemodel's
        names are "<layer>/<index of the blob>".

    Raises:
        MissingWeights: there is no such file.
        WeightsError: it holds no weights, or they cannot be read.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        raise WeightsError(f"{path} is a folder, expected a weight file{_files_in(path)}")
    if not path.is_file():
        raise MissingWeights(f"{path}: no such file{_nearest(path)}")
    with path.open("rb") as file:
        start = file.read(512)
    _refuse_other_files(path, start)
    if _looks_like_safetensors(start, path.stat().st_size):
        return _read_safetensors(path)
    if path.suffix == ".caffemodel" or start[:1] == b"\x0a" or start[:2] == b"\xa2\x06":
        try:
            return {"state_dict": read_caffemodel(path)}
        except CaffeFormatError as error:
            raise WeightsError(f"{path} cannot be read: {error}. {AGAIN}.") from error
    if not start.startswith(b"PK"):
        _compare_with_name(path)
    return _read_torch(path)


def content_sha256(tensors: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """Return the checksum that safetensors files of ours carry, in hexadecimal digits.

    The format has none; other readers pass over ours.

    Args:
        tensors: on the CPU.
        metadata: the file's; the checksum itself does not count.
    """
    entries = [[key, value] for key, value in sorted(metadata.items()) if key != CHECKSUM]
    shapes = [[key, str(x.dtype), list(x.shape)] for key, x in sorted(tensors.items())]
    digest = hashlib.sha256(json.dumps([*entries, *shapes]).encode())
    for _, tensor in sorted(tensors.items()):
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _looks_like_safetensors(start: bytes, size: int) -> bool:
    """Tell whether a file of `size` bytes that begins with `start` may be safetensors'.

    Such a file begins with 8 bytes, the length of its header, and the header, JSON.
    """
    length = int.from_bytes(start[:8], "little")
    return start[8:9] == b"{" and length <= MAX_HEADER and (length < size or size < 4096)


def _read_safetensors(path: Path) -> dict[str, Any]:
    """Read tensors and metadata, and compare them with their checksum where there is one."""
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            metadata = file.metadata() or {}
    except SafetensorError as error:
        reason = str(error).removeprefix("Error while deserializing header: ")
        raise WeightsError(
            f"{path} cannot be read: it is truncated or damaged ({reason}). {AGAIN}."
        ) from error
    checksum = metadata.get(CHECKSUM)
    if checksum is not None and checksum != json.dumps(content_sha256(tensors, metadata)):
        raise WeightsError(
            f"{path} cannot be read: its content is not what its checksum says: damaged. {AGAIN}."
        )
    return {"state_dict": tensors, "metadata": metadata}


def _files_in(folder: Path) -> str:
    """List the weight files to choose from, as the end of a sentence."""
    files = [p for p in (*folder.glob("*"), *folder.glob("*/*")) if p.suffix in SUFFIXES]
    names = sorted(str(path.relative_to(folder)) for path in files)
    return f": give one in it, like {', '.join(names[:3])}" if names else ", and none is in it"


def _nearest(path: Path) -> str:
    """Say which weight file may be meant by a path where none is, as the end of a sentence."""
    kinds = f"a weight file ({', '.join(SUFFIXES)})"
    if not path.parent.is_dir():
        return f", nor a folder {path.parent}: expected {kinds}"
    there = {p.stem: p for p in sorted(path.parent.iterdir()) if p.suffix in SUFFIXES}
    if near := get_close_matches(path.stem, there, 1):
        return f": did you mean {there[near[0]]}?"
    if there:
        names = first_few([file.name for file in there.values()])
        return f": expected {kinds}; in {path.parent} there is {names}"
    return f": expected {kinds}; in {path.parent} there is none"


def _read_torch(path: Path) -> dict[str, Any]:
    """Read a file of either of PyTorch's containers."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        function = re.search(r"GLOBAL ([\w.]+)", str(error))
        if function is None:
            raise WeightsError(
                f"{path}: not a weight file, or a damaged one. {AGAIN}, or take another one"
            ) from error
        raise WeightsError(
            f"{path} holds more than weights ({function[1]}), which is not executed. Take a file "
            "of names and tensors alone: whoever wrote this one can save its state_dict()"
        ) from error
    except Exception as error:  # a damaged file makes torch raise almost anything
        raise WeightsError(
            f"{path}: not a PyTorch weight file, or a truncated one ({_first_line(error)}). "
            f"{AGAIN}."
        ) from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise WeightsError(f"{path} holds a {type(content).__name__}, expected names and tensors")
    return content


def _refuse_other_files(path: Path, start: bytes) -> None:
    """Raise a WeightsError for what people take for weights: web pages, archives and others."""
    if not start:
        raise WeightsError(f"{path} is empty: the download went wrong. {AGAIN}.")
    text = start.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html")):
        raise WeightsError(f"{path} is a web page, not weights: the download went wrong. {AGAIN}.")
    if text.startswith(b"version https://git-lfs"):
        raise WeightsError(
            f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull` where it "
            "comes from"
        )
    if start.startswith(b"PK"):
        _refuse_bad_archive(path)
    if start.startswith((b"\x1f\x8b", b"Rar!", b"7z\xbc\xaf")):
        raise WeightsError(f"{path} is an archive: unpack it, and give the weight file in it")
    if path.suffix == ".prototxt":
        raise WeightsError(
            f"{path} describes a network; its weights are in a .caffemodel beside it"
        )
    if _is_tensorflow(path, text):
        raise WeightsError(
            f"{path} is part of a TensorFlow checkpoint, which is not read here. Take the "
            ".caffemodel that it was made from, or a PyTorch file."
        )


def _refuse_bad_archive(path: Path) -> None:
    """Raise a WeightsError for a zip that is not PyTorch's, or is damaged."""
    try:
        problem = _problem_of_archive(path)
    except Exception as error:  # a damaged zip makes zipfile raise almost anything
        problem = f"is damaged ({_first_line(error)}). {AGAIN}, or take another copy."
    if problem:
        raise WeightsError(f"{path} {problem}")


def _problem_of_archive(path: Path) -> str | None:
    """Say what is wrong with a zip, or None; torch.load looks at no record's checksum."""
    if not zipfile.is_zipfile(path):
        return f"is truncated: its end is missing. {AGAIN}."
    with zipfile.ZipFile(path) as archive:
        records = {record.filename: record for record in archive.infolist()}
        if not any(name.rpartition("/")[2] == "data.pkl" for name in records):
            weights = [name for name in records if name.endswith(SUFFIXES)]
            inside = f" ({', '.join(weights[:4])})" if weights else ""
            return (
                "is a zip archive, not a weight file: unpack it, and give a weight file in "
                f"it{inside}"
            )
        # torch takes a record marked as a folder for empty, and leaves its numbers undefined
        bad = next((n for n, r in records.items() if r.external_attr & 0x10 and r.file_size), None)
        if any(record.CRC for record in records.values()):
            bad = bad or archive.testzip()
        else:  # torch.serialization.set_crc32_options(False) leaves all of them 0
            warnings.warn(f"{path} was saved without checksums: damage cannot show", stacklevel=5)
    if bad:
        return (
            f"is damaged: its record {bad} is not what was written (by its checksum, or its "
            f"entry). {AGAIN}, or take another copy."
        )
    return None


def _compare_with_name(path: Path) -> None:
    """Warn of a file without checksums that is not the one whose hash its name gives."""
    in_name = HASH_IN_NAME.search(path.name)
    if in_name and not (sha256 := sha256_of(path)).startswith(in_name[1]):
        warnings.warn(
            f"{path}: its name says that its SHA-256 begins with {in_name[1]}, but it begins with "
            f"{sha256[: len(in_name[1])]}: the file is damaged, or was saved anew. Fetch it again "
            "unless you know better",
            stacklevel=3,
        )


def _is_tensorflow(path: Path, text: bytes) -> bool:
    """Tell whether a file whose first bytes are `text` is part of a TensorFlow checkpoint."""
    if text.startswith(b"model_checkpoint_path") or ".data-0" in path.name:
        return True
    with path.open("rb") as file:
        file.seek(max(path.stat().st_size - len(TENSORFLOW), 0))
        return path.suffix == ".meta" or file.read() == TENSORFLOW


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
