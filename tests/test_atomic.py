from concurrent.futures import ThreadPoolExecutor

import pytest

from deeplab_lit.atomic import WriteError, atomic_folder, atomic_write


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new/b.txt"
    with atomic_write(path) as place:
        place.write_bytes(b"half")
        assert not path.exists()
        place.write_bytes(b"whole")
    assert path.read_bytes() == b"whole"

    def stopped():
        with atomic_write(path) as place:
            place.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert path.read_bytes() == b"whole"
    assert [p.name for p in path.parent.iterdir()] == ["b.txt"]


def test_writing_a_file_harms_no_neighbor(tmp_path):
    neighbors = ["b.tmp", ".b.txt", "b"]
    for name in neighbors:
        (tmp_path / name).write_text("mine")
    with atomic_write(tmp_path / "b.txt") as place:
        place.write_bytes(b"whole")
    assert all((tmp_path / name).read_text() == "mine" for name in neighbors)


@pytest.mark.parametrize("bad", ["file/b.txt", "file/folder/b.txt"])
def test_a_place_that_cannot_be_written_gets_a_sentence(tmp_path, bad):
    (tmp_path / "file").write_text("mine")
    with (
        pytest.raises(WriteError, match=r"cannot be written .*choose another place"),
        atomic_write(tmp_path / bad),
    ):
        pass


def test_writers_of_one_file_do_not_disturb_each_other(tmp_path):
    def write(number):
        with atomic_write(tmp_path / "b.txt") as place:
            place.write_bytes(bytes([number]) * 10_000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(100)))
    assert len(set((tmp_path / "b.txt").read_bytes())) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["b.txt"]


def test_a_folder_has_its_name_only_when_it_is_whole_and_keeps_what_is_done(tmp_path):
    path = tmp_path / "new/folder"

    def stopped():
        with atomic_folder(path) as part:
            (part / "a.txt").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        stopped()
    assert not path.exists()
    with atomic_folder(path) as part:
        assert (part / "a.txt").is_file()
        (part / "b.txt").touch()
    assert sorted(p.name for p in path.iterdir()) == ["a.txt", "b.txt"]
    assert [p.name for p in path.parent.iterdir()] == ["folder"]
