import io
import shutil
import tarfile
import zipfile
from types import SimpleNamespace

import pytest

from deeplab_lit.data import DataError
from deeplab_lit.prepare.unpack import under, unpack

MEMBERS = {
    "top/kit/a.txt": b"A" * 3000,
    "top/kit/sub/b.txt": b"B",
    "top/kit/.DS_Store": b"x",
    "top/other.txt": b"C",
    "__MACOSX/kit/a.txt": b"x",
}


def make(files, tmp_path, kind, members=MEMBERS):
    path = tmp_path / f"archive{kind}"
    if kind == ".zip":
        files.zip(path, members)
    else:
        files.tar(path, members, "w" if kind == ".tar" else "w:gz")
    return path


def text_files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("kind", [".tar", ".tgz", ".tar.gz", ".zip"])
def test_what_is_wanted_is_unpacked_and_the_rest_is_left(files, tmp_path, kind):
    out = tmp_path / "out"
    out.mkdir()
    archive = make(files, tmp_path, kind)
    unpack(archive, out, under("kit"))
    assert text_files(out) == {"a.txt": b"A" * 3000, "sub/b.txt": b"B"}
    unpack(archive, out, under("kit/sub", to="x/y"))
    assert (out / "x/y/b.txt").read_bytes() == b"B"
    with pytest.raises(DataError, match=r"archive.* does not hold what"):
        unpack(archive, out, under("it"))


@pytest.mark.parametrize("kind", [".tar", ".tgz", ".zip"])
def test_unpacking_goes_on_with_what_is_missing_or_short(files, tmp_path, kind, tree):
    out = tmp_path / "out"
    (out / "sub").mkdir(parents=True)
    (out / "a.txt").write_bytes(b"A" * 3000)
    (out / "sub/b.txt").write_bytes(b"")
    before = tree(out)
    archive = make(files, tmp_path, kind)
    unpack(archive, out, under("kit"))
    assert tree(out)["a.txt"] == before["a.txt"]
    assert (out / "sub/b.txt").read_bytes() == b"B"
    after = tree(out)
    unpack(archive, out, under("kit"))
    assert tree(out) == after


@pytest.mark.parametrize("name", ["kit/../../evil.txt", "../kit/evil.txt", "kit/../evil.txt"])
@pytest.mark.parametrize("kind", [".tar", ".tgz", ".zip"])
@pytest.mark.parametrize("rename", [under("kit"), lambda name: name], ids=["renamed", "as it is"])
def test_a_member_that_points_outside_is_refused(files, tmp_path, kind, name, rename):
    out = tmp_path / "in/out"
    out.mkdir(parents=True)
    archive = make(files, tmp_path, kind, {name: b"evil"})
    with pytest.raises(DataError, match=r"archive\S+: .*outside.*; it is refused"):
        unpack(archive, out, rename)
    assert not list(tmp_path.rglob("evil.txt"))


@pytest.mark.parametrize("name", ["/kit/evil.txt", "C:/kit/evil.txt", "kit\\..\\..\\evil.txt"])
def test_an_absolute_or_foreign_name_in_a_zip_is_refused(files, tmp_path, name):
    out = tmp_path / "out"
    out.mkdir()
    with pytest.raises(DataError, match="points outside; it is refused"):
        unpack(make(files, tmp_path, ".zip", {name: b"evil"}), out, lambda name: name)
    assert not list(out.rglob("*"))


def test_an_absolute_name_in_a_tar_lands_inside(files, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    unpack(make(files, tmp_path, ".tar", {"/kit/a.txt": b"A"}), out, lambda name: name)
    assert text_files(out) == {"kit/a.txt": b"A"}


@pytest.mark.parametrize("target", ["../../secret", "/etc/passwd", "kit/a.txt"])
@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
def test_a_link_in_a_tar_is_refused(tmp_path, target, kind):
    archive, out = tmp_path / "archive.tar", tmp_path / "out"
    out.mkdir()
    with tarfile.open(archive, "w") as file:
        info = tarfile.TarInfo("kit/link")
        info.type, info.linkname = kind, target
        file.addfile(info)
        inside = tarfile.TarInfo("kit/link/b.txt")
        inside.size = 1
        file.addfile(inside, io.BytesIO(b"B"))
    with pytest.raises(DataError, match=r"archive\.tar: .*refused"):
        unpack(archive, out, under("kit"))
    assert not list(out.rglob("*"))


def test_a_link_in_a_zip_is_refused(tmp_path):
    archive, out = tmp_path / "archive.zip", tmp_path / "out"
    out.mkdir()
    with zipfile.ZipFile(archive, "w") as file:
        link = zipfile.ZipInfo("kit/link")
        link.external_attr = 0o120777 << 16
        file.writestr(link, "../../secret")
    with pytest.raises(DataError, match=r"kit/link is a link; it is refused"):
        unpack(archive, out, under("kit"))
    assert not list(out.rglob("*"))


def test_a_device_in_a_tar_is_refused(tmp_path):
    with tarfile.open(tmp_path / "archive.tar", "w") as file:
        info = tarfile.TarInfo("kit/device")
        info.type = tarfile.CHRTYPE
        file.addfile(info)
    with pytest.raises(DataError, match="special file; it is refused"):
        unpack(tmp_path / "archive.tar", tmp_path, under("kit"))


@pytest.mark.parametrize("kind", [".tar", ".tgz", ".zip"])
@pytest.mark.parametrize("keep", [0.0, 0.5, 0.9])
def test_a_short_archive_is_damaged_and_leaves_no_short_file(files, tmp_path, kind, keep):
    out = tmp_path / "out"
    out.mkdir()
    noise = bytes(i * i % 251 for i in range(30_000))
    archive = make(files, tmp_path, kind, {"kit/a.txt": noise})
    archive.write_bytes(archive.read_bytes()[: int(keep * archive.stat().st_size)])
    if kind == ".tar" and keep == 0.9:
        archive.write_bytes(archive.read_bytes()[:25_000])  # within the file, not the padding
    with pytest.raises(DataError, match=r"archive\S+ is damaged or not an archive .*get it again"):
        unpack(archive, out, under("kit"))
    assert not list(out.rglob("*"))


@pytest.mark.parametrize("kind", [".tgz", ".zip"])
def test_a_wrong_checksum_inside_an_archive_is_found_every_time(files, tmp_path, kind):
    archive, out = make(files, tmp_path, kind, {"kit/a.txt": b"A" * 5000}), tmp_path / "out"
    out.mkdir()
    content = bytearray(archive.read_bytes())
    place = len(content) - 8 if kind == ".tgz" else 14  # the CRC-32: gzip's trailer, zip's header
    directory = content.rfind(b"PK\x01\x02")
    for first in (place, directory + 16) if kind == ".zip" else (place,):
        content[first] ^= 255
    archive.write_bytes(content)
    for _ in range(2):
        with pytest.raises(DataError, match="is damaged"):
            unpack(archive, out, under("kit"))


@pytest.mark.parametrize(
    ("field", "value", "words"), [(0, 1, "encrypted"), (2, 9, "compression method")]
)
def test_a_zip_that_python_cannot_read_is_a_sentence(files, tmp_path, field, value, words):
    """A bit of the flags, or the method (9 is Deflate64, which Windows takes for large files)."""
    archive, out = make(files, tmp_path, ".zip", {"kit/a.txt": b"A" * 5000}), tmp_path / "out"
    out.mkdir()
    content = bytearray(archive.read_bytes())
    for header in (6, content.rfind(b"PK\x01\x02") + 8):
        content[header + field] = value
    archive.write_bytes(content)
    with pytest.raises(DataError, match=rf"archive\.zip is encrypted, or .*{words}"):
        unpack(archive, out, under("kit"))
    assert not list(out.rglob("*"))


@pytest.mark.parametrize("kind", [".tar", ".zip"])
def test_what_does_not_fit_is_refused_before_it_is_unpacked(files, tmp_path, kind, monkeypatch):
    archive, out = make(files, tmp_path, kind), tmp_path / "out"
    out.mkdir()
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=2000))
    with pytest.raises(DataError, match=r"needs .* GB, but .* free"):
        unpack(archive, out, under("kit"))
    assert not list(out.rglob("*"))
