"""Refuse processes that read data where they could hand none of it over."""

import os
import sys
import tempfile

from deeplab_lit.errors import UserError

# Tensors come from a worker over a socket, a file /pymp-xxxxxxxx/listener-xxxxxxxx in the temporary
# folder. Its path has this many bytes at most (sun_path of `man 7 unix`, without the 0 at its end)
LONGEST_SOCKET = 103 if sys.platform == "darwin" else 107
LONGEST = LONGEST_SOCKET - len("/pymp-xxxxxxxx/listener-xxxxxxxx")


class WorkersError(UserError):
    """Processes that read data cannot work here; says why and what to do."""


def check_workers(num_workers: int, option: str) -> None:
    """Refuse workers where the temporary folder's name is too long for their sockets.

    The workers of a DataLoader cannot say so: the process that waits for their first batch would
    wait for ever.

    Args:
        num_workers: processes that read data; with 0 there is nothing to hand over.
        option: that sets their number, with its dashes.

    Raises:
        WorkersError: names TMPDIR, its length and what to do.
    """
    folder = tempfile.gettempdir()
    length = len(os.fsencode(folder))
    if num_workers == 0 or sys.platform == "win32" or length <= LONGEST:
        return
    raise WorkersError(
        f"the temporary folder {folder} (the variable TMPDIR) has a name of {length} bytes, and "
        f"processes that read data need one of at most {LONGEST}, or they wait for ever: put "
        f"TMPDIR=/tmp in front of the command, or give {option} 0"
    )
