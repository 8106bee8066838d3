import multiprocessing
import time

import pytest

from deeplab_lit.data import DataError
from deeplab_lit.prepare.whole import alone_in, atomic_folder, write_list

FORK = multiprocessing.get_context("fork")  # fork: nothing to import again


def fail(temporary, write):
    """What a full disk or Ctrl-C does in the middle."""
    write(temporary)
    raise RuntimeError


def test_a_folder_has_its_name_only_when_it_is_whole_and_keeps_what_is_done(tmp_path):
    path = tmp_path / "new/folder"
    with pytest.raises(RuntimeError), atomic_folder(path) as part:
        fail(part, lambda folder: (folder / "a.txt").touch())
    assert not path.exists()
    with atomic_folder(path) as part:
        assert (part / "a.txt").is_file()
        (part / "b.txt").touch()
    assert sorted(p.name for p in path.iterdir()) == ["a.txt", "b.txt"]
    assert [p.name for p in path.parent.iterdir()] == ["folder"]


def test_a_list_has_a_name_a_line(tmp_path):
    write_list(tmp_path / "lists/train.txt", ["a", "b"])
    assert (tmp_path / "lists/train.txt").read_bytes() == b"a\nb\n"


def hold(folder, held):
    with alone_in(folder):
        held.set()
        time.sleep(60)


def test_a_second_process_is_kept_out_until_the_first_has_ended_in_whatever_way(tmp_path):
    held = FORK.Event()
    first = FORK.Process(target=hold, args=(tmp_path, held))
    first.start()
    assert held.wait(20)
    with pytest.raises(DataError, match="another process prepares"), alone_in(tmp_path):
        pass
    first.kill()
    first.join()
    with alone_in(tmp_path):
        pass
    assert not list(tmp_path.iterdir())


def test_what_fails_leaves_no_lock(tmp_path):
    with pytest.raises(RuntimeError), alone_in(tmp_path):
        fail(tmp_path, lambda folder: None)
    assert not list(tmp_path.iterdir())


def test_a_lock_that_has_just_been_lifted_and_removed_is_none(tmp_path, monkeypatch):
    """Another process ends between our opening the file and locking it."""
    locked = []

    def lock(file):
        locked.append(file)
        (tmp_path / ".prepare.lock").unlink()
        return True

    monkeypatch.setattr("deeplab_lit.prepare.whole._lock", lock)
    with pytest.raises(DataError, match="another process"), alone_in(tmp_path):
        pass
    assert len(locked) == 1
