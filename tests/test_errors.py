import errno
import os
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from tqdm import tqdm

from deeplab_lit.data import DataError
from deeplab_lit.errors import UserError, lasting_screen, plain_errors, refused_arguments
from deeplab_lit.network.weights.load import WeightsError
from deeplab_lit.runs.folder import RunFolderError


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (DataError("x.png: bad"), "error: x.png: bad"),
        (WeightsError("no file"), "error: no file"),
        (RunFolderError("taken"), "error: taken"),
        (MisconfigurationException("wrong"), "error: wrong"),
        (
            ModuleNotFoundError("No module named …", name="wandb_workspaces.workspaces"),
            "error: this needs wandb-workspaces, which is not installed: pip install "
            '"deeplab_lit[dashboards]"',
        ),
        (
            DataError("Caught DataError in worker\nTraceback …\nx.DataError: b.png: bad"),
            "error: b.png: bad",
        ),
        (OSError(errno.ENOSPC, "No space left", "a/b"), "error: a/b: No space left."),
        (PermissionError(errno.EACCES, "Permission denied", "a"), "error: a: Permission denied."),
        (torch.OutOfMemoryError("CUDA …"), "error: out of GPU memory."),
        (MemoryError(), "error: out of memory (RAM"),
        (
            RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. "),
            "error: out of memory (RAM",
        ),
        (OSError(errno.EMFILE, "Too many open files", "a.jpg"), "error: too many open files."),
        (
            OSError("Caught OSError in worker\nOSError: [Errno 24] Too many open files: 'a.jpg'"),
            "error: too many open files.",
        ),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "a"), "error: a: Is a directory"),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), "error: what reads the output"),
        (OSError(errno.EADDRINUSE, "Address already in use"), "error: the port"),
        (
            RuntimeError("[gloo/unbound_buffer.cc:83] Timed out waiting 1800000ms for recv"),
            "error: another process of this training has not answered",
        ),
        (
            torch.distributed.DistStoreError("Timed out after 1801 seconds waiting for clients."),
            "error: another process of this training has not answered",
        ),
    ],
)
def test_a_users_mistake_is_a_sentence_and_code_2(error, sentence, capsys):
    with pytest.raises(SystemExit) as stop, plain_errors():
        raise error
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(sentence)


def libraries_own():
    """What libraries raise themselves when they are asked for what cannot be."""

    def no_memory():
        torch.empty(2**50)

    def no_image_memory():
        cv2.resize(np.zeros((2, 2), np.uint8), (2**30, 2**30))

    def taken_port():
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            torch.distributed.TCPStore("127.0.0.1", taken.getsockname()[1], is_master=True)

    def no_home():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os.path, "expanduser", lambda path: path)
            Path.home()

    return {
        "out of memory": no_memory,
        "out of memory ": no_image_memory,
        "Unable to allocate": lambda: np.empty(2**60, np.uint8),
        "MASTER_PORT": taken_port,
        "HOME": no_home,
        "NUL character": lambda: Path("a\0b").stat(),
        "not valid UTF-8": lambda: "\udcff".encode(),
    }


@pytest.mark.parametrize(("words", "raising"), libraries_own().items())
def test_what_libraries_say_of_the_machine_is_a_sentence(words, raising, capsys):
    with pytest.raises(SystemExit) as stop, plain_errors():
        raising()
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert words in said.splitlines()[-1] + " "


@pytest.mark.parametrize(
    "error",
    [
        ValueError("?"), OSError(errno.EIO, "?"), KeyError("?"), TypeError("?"), RuntimeError("?"),
        AttributeError("?"), AssertionError(), RecursionError("?"), FileNotFoundError("?"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    ],
)  # fmt: skip
def test_our_own_bugs_keep_their_traceback(error):
    with pytest.raises(type(error)), plain_errors():
        raise error


def test_ctrl_c_ends_with_130():
    with pytest.raises(SystemExit) as stop, plain_errors():
        raise KeyboardInterrupt
    assert stop.value.code == 130


def test_an_output_that_nobody_reads_any_more_ends_without_a_traceback():
    code = """
import sys
from deeplab_lit.errors import plain_errors
with plain_errors():
    while True:
        print("x" * 100, flush=True)
"""
    run = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE,
                           stderr=subprocess.PIPE, text=True)  # fmt: skip
    run.stdout.readline()
    run.stdout.close()
    assert run.stderr.read() == (
        "error: what reads the output of this command has gone, so the command ends too.\n"
    )
    assert run.wait() == 2


def wrapped(error, *causes):
    """As a parser hands on what a class has raised."""
    for outer in causes:
        outer.__cause__ = error
        error = outer
    return error


def test_what_a_class_refuses_comes_in_its_own_words():
    parser_says = ValueError("does not validate"), ValueError("Union")
    with pytest.raises(UserError, match=r"^too small$"), refused_arguments():
        raise wrapped(ValueError("too small"), *parser_says)


def test_a_mistake_that_a_class_names_stays_what_it_is_with_the_reason_behind_it():
    reason = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    with pytest.raises(DataError, match=r"^x.txt cannot be read$") as raised, refused_arguments():
        raise wrapped(reason, DataError("x.txt cannot be read"), ValueError("Union"))
    assert raised.value.__cause__ is reason


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ("DataLoader worker (pid 7) is killed by signal: Killed. ", "--loader.num_workers"),
        ("[gloo] Read error: Connection reset by peer. GLHF!", "another process of this training"),
        ("[gloo] Connection closed by peer [127.0.0.1]:1", "--ckpt_path last"),
    ],
)
def test_a_process_that_has_died_is_a_sentence(message, words, capsys):
    with pytest.raises(SystemExit) as stop, plain_errors():
        raise RuntimeError(message)
    assert stop.value.code == 2
    assert words in capsys.readouterr().err


def lost_screens():
    """Streams as a shell makes them: `| true`, `> /dev/full`, closed by us, `>&-`."""
    read, write = os.pipe()
    os.close(read)
    with Path(os.devnull).open("w") as closed:
        pass
    return [os.fdopen(write, "w"), Path("/dev/full").open("w"), closed, None]


@pytest.mark.parametrize("which", range(4), ids=["broken", "full", "closed", "none"])
def test_a_command_goes_on_without_its_screen(which, monkeypatch):
    done = []
    monkeypatch.setattr("sys.stdout", lost_screens()[which])
    monkeypatch.setattr("sys.stderr", lost_screens()[which])
    with plain_errors(), lasting_screen():
        for stream in (sys.stdout, sys.stderr):
            print("said" * 10_000, file=stream, flush=True)
            stream.isatty()
        tqdm(range(3), file=sys.stderr).update()
        done.append(1)
    assert done
    with pytest.raises(SystemExit) as stop, plain_errors(), lasting_screen():
        raise DataError("x.png: bad")
    assert stop.value.code == 2


def test_what_was_to_be_said_last_costs_nothing_when_python_ends(monkeypatch):
    stream = lost_screens()[0]
    monkeypatch.setattr("sys.stdout", stream)
    with plain_errors(), lasting_screen():
        print("said")
    stream.flush()  # as Python does; it would end with 120 otherwise


def test_a_screen_that_is_there_is_written_to(capsys):
    with plain_errors(), lasting_screen():
        print("said")
        print("told", file=sys.stderr)
    assert capsys.readouterr() == ("said\n", "told\n")


def test_a_warning_is_a_sentence_without_a_place_in_the_code():
    before = warnings.formatwarning
    with plain_errors():
        shown = warnings.formatwarning(
            UserWarning("one class\n occurs nowhere"), UserWarning, "", 1
        )
    assert shown == "WARNING: one class occurs nowhere\n"
    assert warnings.formatwarning is before
