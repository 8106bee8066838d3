import socket
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from deeplab_lit.workers import LONGEST, WorkersError, check_workers

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="sockets there are no files")


@contextmanager
def temporary_folder_of(length):
    """Make a folder whose path has so many bytes the temporary folder."""
    with tempfile.TemporaryDirectory(dir="/tmp") as short, pytest.MonkeyPatch.context() as patch:
        folder = Path(short, "x" * (length - len(short) - 1))
        folder.mkdir()
        patch.setattr(tempfile, "tempdir", str(folder))
        yield folder


@pytest.mark.parametrize(("more", "fits"), [(0, True), (1, False)])
def test_the_longest_folder_is_that_in_which_a_socket_can_be_made(more, fits):
    """As multiprocessing names it: two random names of eight characters."""
    with temporary_folder_of(LONGEST + more) as folder, socket.socket(socket.AF_UNIX) as one:
        name = f"{tempfile.mkdtemp(prefix='pymp-')}/listener-abcdefgh"
        if fits:
            one.bind(name)
            check_workers(1, "--num_workers")
            return
        with pytest.raises(OSError, match="too long"):
            one.bind(name)
        check_workers(0, "--num_workers")
        words = rf"{folder} .*of {LONGEST + 1} bytes.*at most {LONGEST}.*or give --num_workers 0"
        with pytest.raises(WorkersError, match=words):
            check_workers(1, "--num_workers")


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has four bytes less")
def test_on_linux_it_is_75_bytes():
    assert LONGEST == 108 - 1 - len("/pymp-") - 8 - len("/listener-") - 8 == 75
