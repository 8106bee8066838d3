import errno

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from deeplab_lit.data import DataError
from deeplab_lit.errors import cause_of, plain_errors
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


def test_the_cause_of_a_wrapped_error_is_the_innermost_of_its_kind():
    inner = DataError("no such folder")
    inner.__cause__ = KeyError("not this")
    outer = ValueError("Problem with data: no such folder")
    outer.__cause__ = inner
    assert cause_of(outer) == "no such folder"
    assert cause_of(ValueError("alone")) == "alone"


@pytest.mark.parametrize("error", [ValueError("?"), OSError(errno.EIO, "?"), KeyError("?")])
def test_our_own_bugs_keep_their_traceback(error):
    with pytest.raises(type(error)), plain_errors():
        raise error


def test_ctrl_c_ends_with_130():
    with pytest.raises(SystemExit) as stop, plain_errors():
        raise KeyboardInterrupt
    assert stop.value.code == 130
