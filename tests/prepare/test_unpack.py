import io
import shutil
import tarfile
import zipfile
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from deeplab_lit.atomic import NoRoomError
from deeplab_lit.data import ADE20K, Cityscapes, DataError
from deeplab_lit.prepare.unpack import prepare_ade20k, prepare_cityscapes, under, unpack

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
    with pytest.raises(NoRoomError, match=r"needs .* GB, but .* free"):
        unpack(archive, out, under("kit"))
    assert not list(out.rglob("*"))


@pytest.fixture
def ade20k(server, files):
    top, members = "ADEChallengeData2016", {}
    for folder, ids in (
        ("training", ["ADE_train_1", "ADE_train_2"]),
        ("validation", ["ADE_val_1"]),
    ):
        members |= {f"{top}/images/{folder}/{id}.jpg": files.jpg() for id in ids}
        members |= {
            f"{top}/annotations/{folder}/{id}.png": files.png(files.mask(150)) for id in ids
        }
    members |= {f"{top}/objectInfo150.txt": b"Idx\tRatio\tTrain\tVal\tName\n"}
    files.zip(server.folder / f"{top}.zip", members)


def test_ade20k_becomes_what_its_data_class_reads(source, ade20k, tree, files):
    hint = prepare_ade20k(source)
    data = ADE20K(hint.rpartition(" ")[2])
    assert data.split("train").ids == ["ADE_train_1", "ADE_train_2"]
    mask, raw = data.split("val").read(0)[1], files.mask(150).astype(int)
    np.testing.assert_array_equal(mask, np.where(raw > 0, raw - 1, 255))
    before = tree(source.root)
    prepare_ade20k(source)
    assert tree(source.root) == before


def test_another_archive_than_ade20ks_is_not_taken(source, ade20k):
    with pytest.raises(DataError, match="its sha1 is"):
        prepare_ade20k(replace(source, unofficial=False))
    assert not list(source.root.iterdir())


FRAMES = {"train": "aachen/aachen_000000_000019", "val": "frankfurt/frankfurt_000000_000294"}


@pytest.fixture
def zips(source, files):
    """The two archives in the root, with a frame of train and of val."""
    members = {
        f"leftImg8bit/{s}/{f}_leftImg8bit.png": files.png(np.zeros((20, 30, 3)))
        for s, f in FRAMES.items()
    }
    files.zip(source.root / "leftImg8bit_trainvaltest.zip", {"README": b"x", **members})
    members = {
        f"gtFine/{s}/{f}_gtFine_labelIds.png": files.png(np.full((20, 30), 7))
        for s, f in FRAMES.items()
    }
    members |= {f"gtFine/{s}/{f}_gtFine_polygons.json": b"{}" for s, f in FRAMES.items()}
    files.zip(source.root / "gtFine_trainvaltest.zip", members)


def test_cityscapes_zips_become_what_its_data_class_reads(source, zips, server, capsys):
    hint = prepare_cityscapes(source)
    assert hint == f"--data Cityscapes --data.root {source.root}"
    data = Cityscapes(str(source.root))
    assert data.split("train").ids == ["aachen_000000_000019"]
    image, mask = data.split("val").read(0)
    assert image.shape == (20, 30, 3)
    assert (mask == 0).all()  # label id 7 is road
    said = capsys.readouterr().out
    assert "(leftImg8bit)" in said
    assert "train: 1, officially 2,975; val: 1, officially 500; test: 0, officially 1,525" in said
    assert not server.requests


def test_a_second_run_on_cityscapes_does_nothing(source, zips, tree, capsys):
    prepare_cityscapes(source)
    before = tree(source.root)
    capsys.readouterr()
    prepare_cityscapes(source)
    assert tree(source.root) == before
    assert capsys.readouterr().out == ""


def test_without_the_zips_of_cityscapes_it_says_where_people_get_them(source):
    with pytest.raises(DataError, match=r"leftImg8bit_trainvaltest\.zip is missing.*cityscapes-da"):
        prepare_cityscapes(replace(source, mirror=None))


def test_a_part_of_cityscapes_is_not_taken_for_the_whole(source, zips):
    with pytest.raises(DataError, match="val: 1, officially 500"):
        prepare_cityscapes(replace(source, unofficial=False))
    assert not (source.root / "leftImg8bit").exists()
