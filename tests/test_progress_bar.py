import hashlib
import io
import sys

import pytest
from tqdm import tqdm

from deeplab_lit.progress_bar import digest_of, progress_bar


class Screen(io.StringIO):
    """A stream that may call itself a terminal."""

    def __init__(self, terminal):
        super().__init__()
        self.isatty = lambda: terminal


@pytest.fixture
def screen(monkeypatch):
    def build(*, terminal):
        monkeypatch.setattr(sys, "stderr", Screen(terminal))
        return sys.stderr

    return build


@pytest.mark.parametrize("options", [{}, {"position": 1}, {"unit": "B", "unit_scale": True}])
def test_a_log_file_gets_lines_without_control_characters(screen, options):
    log = screen(terminal=False)
    with progress_bar(desc="reading", total=3, **options) as bar:
        for _ in range(3):
            bar.update()
        tqdm.write("a word", file=log)
    lines = log.getvalue().split("\n")
    assert [line.split(":")[0] for line in lines] == ["reading", "a word", "reading", ""]
    assert "100%" in lines[-2]
    assert not [c for c in log.getvalue() if ord(c) < 32 and c != "\n"]


def test_a_terminal_gets_a_bar_that_is_drawn_over(screen):
    terminal = screen(terminal=True)
    for _ in progress_bar(range(3), desc="reading"):
        pass
    assert terminal.getvalue().count("\r") >= 2
    assert "100%" in terminal.getvalue()


def test_what_would_not_stay_and_is_done_soon_is_not_in_a_log(screen):
    log = screen(terminal=False)
    for _ in progress_bar(range(3), desc="reading", leave=False):
        pass
    assert log.getvalue() == ""


def test_without_stderr_there_is_no_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", None)  # as with pythonw, or after `2>&-`
    assert list(progress_bar(range(3))) == [0, 1, 2]


def test_of_several_processes_the_first_shows_bars(screen, monkeypatch):
    terminal = screen(terminal=True)
    monkeypatch.setenv("LOCAL_RANK", "1")
    assert list(progress_bar(range(3))) == [0, 1, 2]
    assert terminal.getvalue() == ""


@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_the_digest_of_a_file_is_hashlibs_however_large(tmp_path, monkeypatch, large, algorithm):
    content = bytes(range(256)) * 10
    (tmp_path / "x.tar").write_bytes(content)
    if large:
        monkeypatch.setattr("deeplab_lit.progress_bar.LARGE", 100)
        monkeypatch.setattr("deeplab_lit.progress_bar.CHUNK", 999)
    expected = hashlib.new(algorithm, content).hexdigest()
    assert digest_of(tmp_path / "x.tar", algorithm) == expected
