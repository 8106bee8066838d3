import errno

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from deeplab_lit.data import DataError
from deeplab_lit.errors import plain_errors, refused_arguments
from deeplab_lit.network.weights import WeightsError
from deeplab_lit.training.run_folder import RunFolderError


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (DataError("x.png: bad"), "error: x.png: bad"),
        (WeightsError("no file"), "error: no file"),
        (RunFolderError("taken"), "error: taken"),
        (MisconfigurationException("wrong"), "error: wrong"),
        (
            DataError("Caught DataError in worker\nTraceback …\nx.DataError: b.png: bad"),
            "error: b.png: bad",
        ),
        (OSError(errno.ENOSPC, "No space left", "a/b"), "error: a/b: No space left."),
        (PermissionError(errno.EACCES, "Permission denied", "a"), "error: a: Permission denied."),
        (torch.OutOfMemoryError("CUDA …"), "error: out of GPU memory."),
    ],
)
def test_a_users_mistake_is_a_sentence_and_code_2(error, sentence, capsys):
    with pytest.raises(SystemExit) as stop, plain_errors():
        raise error
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(sentence)


@pytest.mark.parametrize("error", [ValueError("?"), OSError(errno.EIO, "?"), KeyError("?")])
def test_our_own_bugs_keep_their_traceback(error):
    with pytest.raises(type(error)), plain_errors():
        raise error


def test_ctrl_c_ends_with_130():
    with pytest.raises(SystemExit) as stop, plain_errors():
        raise KeyboardInterrupt
    assert stop.value.code == 130


def wrapped(error, *causes):
    """As a parser hands on what a class has raised."""
    for outer in causes:
        outer.__cause__ = error
        error = outer
    return error


def test_what_a_class_refuses_comes_in_its_own_words():
    parser_says = ValueError("does not validate"), ValueError("Union")
    with pytest.raises(MisconfigurationException, match=r"^too small$"), refused_arguments():
        raise wrapped(ValueError("too small"), *parser_says)


def test_a_mistake_that_a_class_names_stays_what_it_is_with_the_reason_behind_it():
    reason = UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
    with pytest.raises(DataError, match=r"^x.txt cannot be read$") as raised, refused_arguments():
        raise wrapped(reason, DataError("x.txt cannot be read"), ValueError("Union"))
    assert raised.value.__cause__ is reason
