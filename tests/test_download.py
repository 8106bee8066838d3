import errno
import functools
import io
import shutil
from email.message import Message
from types import SimpleNamespace
from urllib.error import HTTPError

import pytest

from deeplab_lit.atomic import NoRoomError, check_room
from deeplab_lit.download import DownloadError
from deeplab_lit.download import download as download_for

download = functools.partial(download_for, mirror="--mirror", folder="--root")
CONTENT = bytes(range(256)) * 20_000  # 5 MB: several chunks


@pytest.fixture
def file(server):
    (server.folder / "a.bin").write_bytes(CONTENT)
    return f"{server.url}/a.bin"


def test_a_download_is_a_part_file_until_somebody_has_checked_it(file, tmp_path):
    part, whole = download(file, tmp_path / "a.bin")
    assert whole
    assert part == tmp_path / "a.bin.part"
    assert part.read_bytes() == CONTENT
    assert not (tmp_path / "a.bin").exists()


def test_a_download_that_was_cut_off_says_so_and_goes_on_where_it_stopped(file, server, tmp_path):
    server.cut = 1_234_567
    with pytest.raises(DownloadError, match=r"did not finish .*same command again.*--mirror"):
        download(file, tmp_path / "a.bin")
    assert (tmp_path / "a.bin.part").read_bytes() == CONTENT[:1_234_567]
    with pytest.raises(DownloadError, match="did not finish"):
        download(file, tmp_path / "a.bin")
    server.cut = None
    assert download(file, tmp_path / "a.bin").part.read_bytes() == CONTENT
    assert [asked for _, asked in server.requests] == [None, "bytes=1234567-", "bytes=2469134-"]


def test_halves_of_two_versions_are_not_put_together(file, server, tmp_path, capsys):
    server.version, server.cut = '"first"', 1_234_567
    for _ in range(2):
        with pytest.raises(DownloadError):
            download(file, tmp_path / "a.bin")
    assert (tmp_path / "a.bin.part").stat().st_size == 2 * 1_234_567
    server.version, server.cut = '"second"', None
    (server.folder / "a.bin").write_bytes(CONTENT[::-1])
    assert download(file, tmp_path / "a.bin").part.read_bytes() == CONTENT[::-1]
    assert "has changed since its first bytes came" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["a.bin.part"]


def test_a_server_without_ranges_starts_again(file, server, tmp_path):
    server.ranges = False
    (tmp_path / "a.bin.part").write_bytes(b"something else")
    assert download(file, tmp_path / "a.bin").part.read_bytes() == CONTENT


def test_a_part_that_is_complete_is_taken_and_one_that_is_too_long_is_not(file, server, tmp_path):
    part = tmp_path / "a.bin.part"
    part.write_bytes(CONTENT)
    assert download(file, tmp_path / "a.bin").part.read_bytes() == CONTENT
    assert len(server.requests) == 1
    part.write_bytes(CONTENT + b"more")
    assert download(file, tmp_path / "a.bin").part.read_bytes() == CONTENT


def test_what_cannot_be_reached_is_named_with_the_ways_around(file, server, tmp_path):
    with pytest.raises(DownloadError, match=rf"nothing\.bin: .*404.* put it at {tmp_path}/b\.bin;"):
        download(f"{server.url}/nothing.bin", tmp_path / "b.bin")
    server.shutdown()
    server.server_close()
    with pytest.raises(DownloadError, match=r"a\.bin: the download did not finish \(.*refused"):
        download(file, tmp_path / "a.bin")
    with pytest.raises(DownloadError, match="did not finish"):
        download("not an address", tmp_path / "a.bin")
    assert not list(tmp_path.glob("*.bin*"))


def test_what_does_not_fit_is_refused_before_it_is_fetched(file, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=5_000_000))
    with pytest.raises(NoRoomError, match=r"a\.bin needs 0\.01 GB, but 0\.01 GB are free.*--root"):
        download(file, tmp_path / "a.bin")
    assert not list(tmp_path.glob("*.bin*"))
    (tmp_path / "a.bin.part").write_bytes(CONTENT[:1_000_000])  # the rest does fit
    assert download(file, tmp_path / "a.bin").part.read_bytes() == CONTENT
    check_room(tmp_path / "a.bin", 5_000_000, "--root")


def test_a_disk_that_is_full_meanwhile_is_the_disks_own_error(file, tmp_path):
    (tmp_path / "a.bin.part").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left") as caught:
        download(file, tmp_path / "a.bin")
    assert caught.value.errno == errno.ENOSPC
    assert not (tmp_path / "a.bin").exists()


@pytest.mark.parametrize("length", ["abc", "-1", "1e6", "5, 5", "9" * 40, "9000000"])
def test_a_wrong_length_is_a_sentence_and_the_download_goes_on(file, server, tmp_path, length):
    server.length, server.cut = length, 4_000_000
    with pytest.raises(DownloadError, match=r"did not finish .*same command again"):
        download(file, tmp_path / "a.bin")
    server.length = server.cut = None
    assert download(file, tmp_path / "a.bin") == (tmp_path / "a.bin.part", True)
    assert (tmp_path / "a.bin.part").read_bytes() == CONTENT
    asked = [wanted for _, wanted in server.requests]
    assert asked == [None, "bytes=4000000-" if length == "9000000" else None]


def test_without_a_length_nobody_knows_whether_all_has_come(file, server, tmp_path):
    server.length, server.cut = "", 4_000_000
    assert not download(file, tmp_path / "a.bin").whole
    server.cut = None
    assert download(file, tmp_path / "a.bin").whole  # the range says of how many bytes it is one
    assert (tmp_path / "a.bin.part").read_bytes() == CONTENT


def test_a_length_that_is_no_number_is_named(file, server, tmp_path):
    server.length = "abc"
    with pytest.raises(
        DownloadError, match="the server says Content-Length: abc, which is no number"
    ):
        download(file, tmp_path / "a.bin")


def test_more_than_any_archive_has_is_refused_and_never_fills_the_disk(
    file, server, tmp_path, monkeypatch
):
    monkeypatch.setattr("deeplab_lit.download.LARGEST", 3_000_000)
    with pytest.raises(DownloadError, match="which no file that is fetched here has"):
        download(file, tmp_path / "a.bin")
    assert not list(tmp_path.glob("*.part"))
    server.length = ""
    with pytest.raises(DownloadError, match="which no file that is fetched here has"):
        download(file, tmp_path / "a.bin")
    assert (tmp_path / "a.bin.part").stat().st_size <= 3_000_000


def test_a_few_redirects_are_followed_and_no_more(file, server, tmp_path):
    server.places = {f"/{i}": f"/{i + 1}" for i in range(4)} | {"/4": "a.bin"}
    assert download(f"{server.url}/0", tmp_path / "x").part.read_bytes() == CONTENT
    server.places["/a.bin"] = "/0"
    with pytest.raises(DownloadError, match="more than 5 redirects"):
        download(f"{server.url}/0", tmp_path / "y")


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://x.org/a", "data:,a", "gopher://x"])
def test_a_redirect_away_from_the_web_is_refused(server, tmp_path, place):
    server.places = {"/a.bin": place}
    with pytest.raises(DownloadError, match=f"sends us from http on to {place}: not followed"):
        download(f"{server.url}/a.bin", tmp_path / "a.bin")
    assert not list(tmp_path.glob("a.bin*"))


@pytest.mark.parametrize("place", ["http://other.org/a.bin", "HTTP://other.org/a.bin"])
def test_a_redirect_from_https_to_http_is_refused(place, tmp_path, monkeypatch):
    class Encrypted:
        """Answers as an https server would, and must not be asked for anything else."""

        def open(self, request, timeout):
            assert request.type == "https"
            headers = Message()
            headers["Location"] = place
            raise HTTPError(request.full_url, 302, "Found", headers, io.BytesIO())

    monkeypatch.setattr("deeplab_lit.download.build_opener", lambda *_: Encrypted())
    with pytest.raises(DownloadError, match=r"(?i)from https on to http://other.*not followed"):
        download("https://example.org/a.bin", tmp_path / "a.bin")
