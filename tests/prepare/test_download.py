import errno
import shutil
from types import SimpleNamespace

import pytest

from deeplab_lit.data import DataError
from deeplab_lit.prepare.download import check_room, download

CONTENT = bytes(range(256)) * 20_000  # 5 MB: several chunks


@pytest.fixture
def file(server):
    (server.folder / "a.bin").write_bytes(CONTENT)
    return f"{server.url}/a.bin"


def test_a_download_is_a_part_file_until_somebody_has_checked_it(file, tmp_path):
    part = download(file, tmp_path / "a.bin")
    assert part == tmp_path / "a.bin.part"
    assert part.read_bytes() == CONTENT
    assert not (tmp_path / "a.bin").exists()


def test_a_download_that_was_cut_off_says_so_and_goes_on_where_it_stopped(file, server, tmp_path):
    server.cut = 1_234_567
    with pytest.raises(DataError, match=r"did not finish .*same command again.*--mirror"):
        download(file, tmp_path / "a.bin")
    assert (tmp_path / "a.bin.part").read_bytes() == CONTENT[:1_234_567]
    with pytest.raises(DataError, match="did not finish"):
        download(file, tmp_path / "a.bin")
    server.cut = None
    assert download(file, tmp_path / "a.bin").read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [None, "bytes=1234567-", "bytes=2469134-"]


def test_a_server_without_ranges_starts_again(file, server, tmp_path):
    server.ranges = False
    (tmp_path / "a.bin.part").write_bytes(b"something else")
    assert download(file, tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_part_that_is_complete_is_taken_and_one_that_is_too_long_is_not(file, server, tmp_path):
    part = tmp_path / "a.bin.part"
    part.write_bytes(CONTENT)
    assert download(file, tmp_path / "a.bin").read_bytes() == CONTENT
    assert len(server.requests) == 1
    part.write_bytes(CONTENT + b"more")
    assert download(file, tmp_path / "a.bin").read_bytes() == CONTENT


def test_what_cannot_be_reached_is_named_with_the_ways_around(file, server, tmp_path):
    with pytest.raises(DataError, match=rf"nothing\.bin: .*404.* put it at {tmp_path}/b\.bin;"):
        download(f"{server.url}/nothing.bin", tmp_path / "b.bin")
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match=r"a\.bin: the download did not finish \(.*refused"):
        download(file, tmp_path / "a.bin")
    with pytest.raises(DataError, match="did not finish"):
        download("not an address", tmp_path / "a.bin")
    assert not list(tmp_path.glob("*.bin*"))


def test_what_does_not_fit_is_refused_before_it_is_fetched(file, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5_000_000))
    with pytest.raises(DataError, match=r"a\.bin needs 0\.01 GB, but 0\.01 GB are free.*--root"):
        download(file, tmp_path / "a.bin")
    assert not list(tmp_path.glob("*.bin*"))
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:1_000_000])  # the rest does fit
    assert download(file, tmp_path / "a.bin").read_bytes() == CONTENT
    check_room(tmp_path / "a.bin", 5_000_000)


def test_a_disk_that_is_full_meanwhile_is_the_disks_own_error(file, tmp_path):
    (tmp_path / "a.bin.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        download(file, tmp_path / "a.bin")
    assert caught.value.errno == errno.ENOSPC
    assert not (tmp_path / "a.bin").exists()
