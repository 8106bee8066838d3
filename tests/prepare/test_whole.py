import pytest

from deeplab_lit.prepare.whole import whole_file, whole_folder, write_list


def fail(temporary, write):
    """What a full disk or Ctrl-C does in the middle."""
    write(temporary)
    raise RuntimeError


def test_a_file_has_its_name_only_when_it_is_whole(tmp_path):
    path = tmp_path / "new/a.txt"
    with pytest.raises(RuntimeError), whole_file(path) as temporary:
        fail(temporary, lambda file: file.write_text("half"))
    assert not list(path.parent.iterdir())
    with whole_file(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]
    with pytest.raises(RuntimeError), whole_file(path) as temporary:
        fail(temporary, lambda file: file.write_text("half"))
    assert path.read_text() == "whole"


def test_a_folder_has_its_name_only_when_it_is_whole_and_keeps_what_is_done(tmp_path):
    path = tmp_path / "new/folder"
    with pytest.raises(RuntimeError), whole_folder(path) as part:
        fail(part, lambda folder: (folder / "a.txt").touch())
    assert not path.exists()
    with whole_folder(path) as part:
        assert (part / "a.txt").is_file()
        (part / "b.txt").touch()
    assert sorted(p.name for p in path.iterdir()) == ["a.txt", "b.txt"]
    assert [p.name for p in path.parent.iterdir()] == ["folder"]


def test_a_list_has_a_name_a_line(tmp_path):
    write_list(tmp_path / "lists/train.txt", ["a", "b"])
    assert (tmp_path / "lists/train.txt").read_bytes() == b"a\nb\n"
