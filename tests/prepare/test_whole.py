import pytest

from deeplab_lit.prepare.whole import whole_folder, write_list


def fail(temporary, write):
    """What a full disk or Ctrl-C does in the middle."""
    write(temporary)
    raise RuntimeError


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
