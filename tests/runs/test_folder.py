import os
import shutil
import signal
from datetime import datetime
from types import SimpleNamespace

import pytest

from deeplab_lit.atomic import NoLocksError
from deeplab_lit.runs import folder as run_folder
from deeplab_lit.runs.folder import (
    RunFolderError,
    check_unfinished,
    config_of,
    create_run_folder,
    hold,
    last_checkpoint,
    named_checkpoint,
    new_run_folder,
    open_results_folder,
)


@pytest.fixture(autouse=True)
def _at_noon(monkeypatch):
    noon = SimpleNamespace(now=lambda: datetime(2026, 5, 4, 12, 0, 0))
    monkeypatch.setattr(run_folder, "datetime", noon)


def checkpoint(folder, seconds):
    path = folder / "checkpoints/last.ckpt"
    path.parent.mkdir(parents=True)
    path.touch()
    os.utime(path, (seconds, seconds))
    return path


def test_a_run_is_called_after_its_time_or_as_asked(tmp_path):
    assert new_run_folder(tmp_path, "voc", None) == tmp_path / "voc/20260504-120000"
    assert new_run_folder(tmp_path, "voc", "mine") == tmp_path / "voc/mine"
    validate = new_run_folder(tmp_path, "voc", None, "-validate")
    assert validate == tmp_path / "voc/20260504-120000-validate"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", ["", "-validate"])
def test_a_folder_is_never_used_twice(suffix, tmp_path):
    folders = []
    for _ in range(4):
        folders.append(new_run_folder(tmp_path, "voc", None, suffix))
        create_run_folder(folders[-1], 0)
    assert len(set(folders)) == 4
    assert {folder.parent for folder in folders} == {tmp_path / "voc"}


def test_a_name_that_is_taken_is_refused(tmp_path):
    create_run_folder(new_run_folder(tmp_path, "voc", "mine"), 0)
    with pytest.raises(RunFolderError, match=r"mine exists already.*--run.*--ckpt_path last"):
        new_run_folder(tmp_path, "voc", "mine")
    assert new_run_folder(tmp_path, "cityscapes", "mine")


def test_runs_that_start_in_the_same_second_do_not_share_a_folder(tmp_path):
    folders = [new_run_folder(tmp_path, "voc", None) for _ in range(2)]
    create_run_folder(folders[0], 0)
    if folders[0] == folders[1]:
        with pytest.raises(RunFolderError):
            create_run_folder(folders[1], 0)


def test_last_is_the_newest_or_the_named(tmp_path):
    old = checkpoint(tmp_path / "voc/b", 1_000)
    new = checkpoint(tmp_path / "voc/a", 2_000)
    checkpoint(tmp_path / "cityscapes/c", 3_000)
    (tmp_path / "voc/z").mkdir()
    assert last_checkpoint(tmp_path, "voc", None) == new
    assert last_checkpoint(tmp_path, "voc", "b") == old


@pytest.mark.parametrize("name", [None, "mine"])
def test_without_a_checkpoint_there_is_nothing_to_go_on_from(name, tmp_path):
    (tmp_path / "voc/mine").mkdir(parents=True)
    with pytest.raises(RunFolderError, match=r"--ckpt_path last.*voc"):
        last_checkpoint(tmp_path, "voc", name)


def test_last_names_the_best_of_the_newest_run_and_says_which(tmp_path, capsys):
    old, new = checkpoint(tmp_path / "voc/a", 1_000), checkpoint(tmp_path / "mine/[b]", 2_000)
    best = old.with_name("best.ckpt")
    best.touch()
    os.utime(best, (500, 500))
    assert named_checkpoint("last", str(tmp_path)) == str(new)  # of the newest there is no other
    assert str(new) in capsys.readouterr().out
    assert named_checkpoint("last", str(tmp_path), "voc") == str(best)
    os.utime(old, (3_000, 3_000))
    assert named_checkpoint("last", str(tmp_path)) == str(best)
    assert named_checkpoint("last", str(tmp_path), "mine") == str(new)


def test_a_run_that_keeps_the_best_only_is_found_and_glob_characters_are_none(tmp_path):
    best = checkpoint(tmp_path / "[x]/a", 1_000).rename(tmp_path / "[x]/a/checkpoints/best.ckpt")
    assert named_checkpoint("last", str(tmp_path), "[x]") == str(best)


@pytest.mark.parametrize("path", ["./last", "runs/last", "best", "LAST", "last.ckpt"])
def test_every_other_name_is_that_of_a_file(path, capsys):
    assert named_checkpoint(path) == path
    assert capsys.readouterr().out == ""


def test_without_a_run_there_is_no_last(tmp_path):
    with pytest.raises(RunFolderError, match=r"--ckpt_path last.*voc.*train first"):
        named_checkpoint("last", str(tmp_path), "voc")


def test_claiming_makes_an_empty_folder_and_only_its_own_run_may_repeat_it(tmp_path):
    folder = tmp_path / "a/b/c"
    create_run_folder(folder, 1)
    create_run_folder(folder, 1, exist_ok=True)
    assert list(folder.iterdir()) == []
    with pytest.raises(RunFolderError, match="another run has just taken"):
        create_run_folder(folder, 1)


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RunFolderError, match=r"cannot be written.*--runs_dir"):
        create_run_folder(tmp_path / "file" / "voc/run", 0)
    with pytest.raises(RunFolderError, match="cannot be written"):
        create_run_folder(tmp_path / "file", 0, exist_ok=True)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_folder_is_refused(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(RunFolderError, match="cannot be written"):
        create_run_folder(tmp_path / "run", 0)


def test_a_full_disk_is_refused_and_leaves_no_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_500_000_000))
    with pytest.raises(RunFolderError, match=r"1,500 MB free.*2,000 MB"):
        create_run_folder(tmp_path / "run", 2_000_000_000)
    assert not (tmp_path / "run").exists()
    create_run_folder(tmp_path / "run", 1_500_000_000)


def test_a_full_disk_leaves_the_folder_of_a_run_that_goes_on(tmp_path, monkeypatch):
    path = checkpoint(tmp_path / "run", 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    with pytest.raises(RunFolderError, match="MB free"):
        create_run_folder(tmp_path / "run", 1, exist_ok=True)
    assert path.is_file()


def test_results_go_on_with_the_same_settings_only(tmp_path):
    folder = tmp_path / "a/b"
    settings = {"scales": (1.0, 0.5), "crf": None}
    open_results_folder(folder, settings)
    (folder / "result.png").touch()
    open_results_folder(folder, settings)
    with pytest.raises(RunFolderError, match=r"other settings \(scales in"):
        open_results_folder(folder, settings | {"scales": (1.0,)})
    with pytest.raises(RunFolderError, match=r"other settings \(opacity in"):
        open_results_folder(folder, settings | {"opacity": 1})
    (folder / "settings.json").write_text("{")
    with pytest.raises(RunFolderError, match="damaged"):
        open_results_folder(folder, settings)


@pytest.mark.parametrize("record", ["[]", "[1, 2]", "3", '"x"', "null"])
def test_settings_of_another_shape_get_a_sentence(record, tmp_path):
    (tmp_path / "settings.json").write_text(record)
    with pytest.raises(RunFolderError, match=r"settings\.json is damaged"):
        open_results_folder(tmp_path, {"scales": 1})


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/x", ".", "..", "a/b", "a\nb", "\0", "a/.."]
)
def test_no_name_leads_out_of_the_runs_folder(name, tmp_path):
    for find in (new_run_folder, last_checkpoint):
        with pytest.raises(RunFolderError, match=r"--run .*--runs_dir"):
            find(tmp_path, "voc", name)
        with pytest.raises(RunFolderError, match=r"--experiment .*--runs_dir"):
            find(tmp_path, name, "mine")


@pytest.mark.parametrize("name", ["a[1]", "lr=1e-3 *best*", "what?", "ä", "..a"])
def test_any_other_name_is_found_again(name, tmp_path):
    for number, other in enumerate(("a1", "lr=1e-3 xbesty", "whatx", name)):
        checkpoint(tmp_path / "voc" / other, 1000 * (4 - number))
        (tmp_path / "voc" / other / "config.yaml").touch()
    expected = tmp_path / "voc" / name
    assert last_checkpoint(tmp_path, "voc", name) == expected / "checkpoints/last.ckpt"
    assert last_checkpoint(tmp_path, "*", name) == expected / "checkpoints/last.ckpt"
    assert config_of(tmp_path, "*", name) == expected / "config.yaml"


def test_an_experiment_is_found_by_its_very_name(tmp_path):
    checkpoint(tmp_path / "voc1/a", 2000)
    old = checkpoint(tmp_path / "voc[1]/a", 1000)
    assert last_checkpoint(tmp_path, "voc[1]", None) == old


def hold_elsewhere(folder, then):
    """A process that holds the folder, and then does something; its id."""
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        try:
            with hold(folder):
                os.write(write, b"x")
                then()
        finally:
            os._exit(0)
    assert os.read(read, 1) == b"x"
    return child


def test_a_folder_is_held_by_one_process_as_long_as_it_lives(tmp_path):
    (tmp_path / ".part-mine").mkdir()
    child = hold_elsewhere(tmp_path, signal.pause)
    (tmp_path / ".part-theirs").mkdir()
    with pytest.raises(RunFolderError, match=r"another process is training.*--run"), hold(tmp_path):
        pass
    assert (tmp_path / ".part-theirs").is_dir()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    with hold(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    assert list(tmp_path.iterdir()) == []


def test_workers_that_outlive_the_run_do_not_hold_its_folder(tmp_path):
    def leave_a_worker():
        if os.fork() == 0:
            signal.alarm(20)
            signal.pause()
        os.kill(os.getpid(), signal.SIGKILL)

    child = hold_elsewhere(tmp_path, leave_a_worker)
    os.waitpid(child, 0)
    with hold(tmp_path):
        pass


def test_a_folder_that_was_held_can_be_held_again(tmp_path):
    with pytest.raises(KeyError), hold(tmp_path):
        raise KeyError
    with hold(tmp_path):
        pass


def test_what_a_killed_process_was_writing_is_removed(tmp_path):
    (tmp_path / "checkpoints/.part-abc").mkdir(parents=True)
    (tmp_path / "checkpoints/.part-abc/best.ckpt").touch()
    (tmp_path / ".part-def").mkdir()
    (tmp_path / ".mine").mkdir()
    with hold(tmp_path):
        left = {path.name for path in tmp_path.rglob("*")}
    assert left == {"checkpoints", ".mine", ".lock"}


def test_without_locks_a_run_goes_on_and_says_so(tmp_path, monkeypatch, capsys):
    (tmp_path / ".part-theirs").mkdir()

    def refuse(file):
        raise NoLocksError("no locks here")

    monkeypatch.setattr(run_folder, "lock", refuse)
    with hold(tmp_path):
        pass
    assert "no locks here: see to it that no other process" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == [".part-theirs"]


def test_a_folder_that_cannot_be_written_is_not_held(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="cannot be written"), hold(tmp_path / "file"):
        pass


@pytest.mark.parametrize(
    ("record", "word"),
    [('{"finished": true}', "has ended"), ("{", "damaged"), ("[]", "damaged"), ("{}", "damaged")],
)
def test_a_run_that_has_ended_is_not_begun_anew(record, word, tmp_path):
    check_unfinished(tmp_path)
    (tmp_path / "results.json").write_text(record)
    with pytest.raises(RunFolderError, match=word):
        check_unfinished(tmp_path)
    (tmp_path / "results.json").write_text('{"finished": false}')
    check_unfinished(tmp_path)
