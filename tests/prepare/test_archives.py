import multiprocessing
import time
from dataclasses import replace

import pytest

from deeplab_lit.data import DataError
from deeplab_lit.prepare.archives import Archive, Source, alone_in

FORK = multiprocessing.get_context("fork")  # fork: nothing to import again
# of the three bytes "abc", from RFC 1321 and RFC 3174
MD5, SHA1 = "900150983cd24fb0d6963f7d28e17f72", "a9993e364706816aba3e25717850c26c9cd0d89d"


@pytest.fixture
def official(tmp_path, server):
    (server.folder / "a.zip").write_bytes(b"abc")
    return Source(tmp_path)


@pytest.mark.parametrize("digest", [f"md5:{MD5}", f"sha1:{SHA1}", None])
@pytest.mark.parametrize("mirror", [False, True])
def test_an_archive_is_downloaded_and_checked(official, server, digest, mirror):
    url = None if mirror else f"{server.url}/a.zip"
    chosen = replace(official, mirror=f"{server.url}/") if mirror else official
    path = chosen.fetch(Archive("a.zip", url, digest))
    assert path == official.root / "a.zip"
    assert path.read_bytes() == b"abc"
    assert [p.name for p in official.root.glob("a.*")] == ["a.zip"]


def test_a_wrong_checksum_leaves_nothing(official, server):
    archive = Archive("a.zip", f"{server.url}/a.zip", f"md5:{MD5}")
    (server.folder / "a.zip").write_bytes(b"abd")
    with pytest.raises(DataError, match=rf"its md5 is \w+, expected {MD5}\. The file was deleted"):
        official.fetch(archive)
    assert not list(official.root.glob("a.*"))
    (server.folder / "a.zip").write_bytes(b"<!DOCTYPE html><p>Log in")
    with pytest.raises(DataError, match="it is a web page"):
        official.fetch(archive)
    assert replace(official, unofficial=True).fetch(archive).is_file()


def test_an_archive_that_lies_there_is_checked_but_never_deleted(official, server):
    path = official.root / "a.zip"
    path.write_bytes(b"abd")
    archive = Archive("a.zip", f"{server.url}/a.zip", f"md5:{MD5}")
    with pytest.raises(DataError, match=rf"{path} is not the official a\.zip.*Delete the file"):
        official.fetch(archive)
    assert path.read_bytes() == b"abd"
    path.write_bytes(b"abc")
    assert official.fetch(archive) == path
    assert not server.requests


SHA256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # from FIPS 180-2


@pytest.mark.parametrize("unofficial", [False, True])
def test_an_archive_without_a_checksum_is_said_to_be_so_each_time(
    official, server, capsys, unofficial
):
    archive = Archive("a.zip", f"{server.url}/a.zip", f"md5:{MD5}" if unofficial else None)
    source = replace(official, unofficial=unofficial)
    why = "is not checked (--unofficial)" if unofficial else "has no published checksum"
    source.fetch(archive)
    said = capsys.readouterr().out
    assert f"a.zip {why} and came over http, where anybody" in said
    assert SHA256 in said
    source.fetch(archive)  # it lies there now
    said = capsys.readouterr().out
    assert f"a.zip {why}. Compare" in said
    assert SHA256 in said


def test_what_was_checked_is_not_warned_of(official, server, capsys):
    official.fetch(Archive("a.zip", f"{server.url}/a.zip", f"md5:{MD5}"))
    assert "NOTE" not in capsys.readouterr().out


def test_a_file_that_may_have_ended_early_is_kept_to_go_on_with(official, server):
    """The server says no length: whether all has come, only the checksum shows."""
    archive = Archive("a.zip", f"{server.url}/a.zip", f"md5:{MD5}")
    server.length, server.cut = "", 2
    with pytest.raises(DataError, match="did not say how long it is, so it may have ended early"):
        official.fetch(archive)
    server.cut = None
    assert official.fetch(archive).read_bytes() == b"abc"
    assert server.requests[-1] == ("/a.zip", "bytes=2-")


def test_an_archive_that_takes_an_account_is_asked_for(official):
    archive = Archive("gt.zip", page="https://example.org (free account)")
    with pytest.raises(DataError, match=r"gt\.zip is missing: get it from https://example\.org"):
        official.fetch(archive)


def test_numbers_that_are_not_the_published_ones_are_refused_or_said(official, capsys):
    official.expect("X", {"train": 10, "val": 5, "more": 1}, {"train": 10, "val": 5})
    assert capsys.readouterr().out == ""
    found, published = {"train": 9, "val": 5}, {"train": 10_582, "val": 5}
    with pytest.raises(DataError, match=r"train: 9, officially 10,582\. .*--unofficial true") as no:
        official.expect("X", found, published)
    assert "val" not in str(no.value)
    replace(official, unofficial=True).expect("X", found, published)
    assert "train: 9, officially 10,582" in capsys.readouterr().out


def hold(folder, held):
    with alone_in(folder):
        held.set()
        time.sleep(600)


def test_a_second_process_is_kept_out_until_the_first_has_ended_in_whatever_way(tmp_path):
    held = FORK.Event()
    first = FORK.Process(target=hold, args=(tmp_path, held))
    first.start()
    assert held.wait(300)
    with pytest.raises(DataError, match="another process prepares"), alone_in(tmp_path):
        pass
    first.kill()
    first.join()
    with alone_in(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_what_fails_leaves_no_lock(tmp_path):
    with pytest.raises(RuntimeError), alone_in(tmp_path):
        raise RuntimeError
    assert not list(tmp_path.iterdir())


def test_a_lock_that_has_just_been_lifted_and_removed_is_none(tmp_path, monkeypatch):
    """Another process ends between our opening the file and locking it."""
    locked = []

    def lock(file, *, inherited):
        locked.append(file)
        (tmp_path / ".prepare.lock").unlink()

    monkeypatch.setattr("deeplab_lit.prepare.archives.lock", lock)
    with pytest.raises(DataError, match="another process"), alone_in(tmp_path):
        pass
    assert len(locked) == 1
