import shutil
from dataclasses import replace

import cv2
import numpy as np
import pytest

from deeplab_lit.data import DataError, Synthia
from deeplab_lit.prepare.synthia import PROGRAMS, prepare_synthia

TOP = "RAND_CITYSCAPES"
CP, BOTH = shutil.which("cp"), ["0000000", "0000001"]


def label(value):
    """A label file: 16 bits, class and instance in the channels R and G."""
    pixels = np.zeros((20, 30, 3), np.uint16)
    pixels[..., 2], pixels[..., 1] = value, 976  # OpenCV writes BGR
    return cv2.imencode(".png", pixels)[1].tobytes()


@pytest.fixture
def members(files):
    """Name in the archive → content: two frames, their labels, colors and depth."""
    found = {f"{TOP}/README.txt": b"x"}
    for id in BOTH:
        found[f"{TOP}/RGB/{id}.png"] = files.png(np.zeros((20, 30, 3)))
        found[f"{TOP}/GT/LABELS/{id}.png"] = label(3)
        found[f"{TOP}/GT/COLOR/{id}.png"] = files.png(np.zeros((20, 30, 3)))
        found[f"{TOP}/Depth/Depth/{id}.png"] = b"depth"
    return found


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A folder in place of PATH, and what makes programs in it that "unpack" files by copying."""
    folder = tmp_path / "programs"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def install(name, members, code=0):
        content = tmp_path / f"of_{name}"
        for member, data in members.items():
            path = content / member
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        target = '"${4#-o}"' if name.startswith("7z") else '"$5"'
        copy = f"{CP} -R {content}/. {target}\n" if members else ""
        words = 'echo "cannot read it" >&2\n' if code else ""
        program = folder / name
        program.write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls\n{copy}{words}exit {code}\n')
        program.chmod(0o755)
        return folder / "calls"

    return install


@pytest.fixture
def rar(source):
    """The archive in the root: no more than a name for programs that do not read it."""
    path = source.root / "SYNTHIA_RAND_CITYSCAPES.rar"
    path.write_bytes(b"Rar!")
    return path


def is_right(source):
    data = Synthia(str(source.root / TOP))
    assert data.training().ids == BOTH
    image, mask = data.training().read(1)
    assert image.shape == (20, 30, 3)
    assert (mask == 0).all()  # class 3 is road
    assert (source.root / TOP / "Depth/Depth/0000000.png").read_bytes() == b"depth"
    assert sorted(p.name for p in source.root.glob(f"{TOP}*")) == [TOP]
    return True


@pytest.mark.parametrize("name", PROGRAMS)
def test_any_program_that_is_there_unpacks_synthia(name, source, rar, programs, members, capsys):
    calls = programs(name, members)
    hint = prepare_synthia(source)
    assert hint == f"--data Synthia --data.root {source.root}"
    assert is_right(source)
    assert str(rar) in calls.read_text()
    said = capsys.readouterr().out
    assert f"unpacking {rar.name} with {name}\n" in said
    assert "RGB: 2, officially 9,400; GT/LABELS: 2, officially 9,400" in said
    assert "2 images with their labels decoded, all sound" in said


@pytest.mark.skipif(not any(map(shutil.which, PROGRAMS)), reason="no program that unpacks a .rar")
def test_a_real_program_does_as_it_is_told(source, files, members):
    """Given a zip of that name, which all of them but unrar tell by its content."""
    files.zip(source.root / "SYNTHIA_RAND_CITYSCAPES.rar", members)
    prepare_synthia(source)
    assert is_right(source)


def test_names_with_backslashes_are_put_right(source, rar, programs, members):
    programs("unrar", {name.replace("/", "\\"): data for name, data in members.items()})
    prepare_synthia(source)
    assert is_right(source)


def test_what_was_unpacked_by_hand_with_backslashes_is_put_right(source, programs, members):
    for name, data in members.items():
        (source.root / name.replace("/", "\\")).write_bytes(data)
    prepare_synthia(source)
    assert is_right(source)


@pytest.mark.parametrize(
    "name", [f"{TOP}\\..\\..\\evil.png", f"\\..\\{TOP}\\evil.png", f"\\{TOP}\\evil.png"]
)
def test_a_name_that_leads_outside_is_refused(name, source, rar, programs, members):
    programs("unrar", {**members, name: b"evil"})
    with pytest.raises(DataError, match="outside; it is refused"):
        prepare_synthia(source)
    assert not list(source.root.parent.glob("evil.png"))


def test_a_link_in_the_archive_is_refused(source, rar, programs, members, tmp_path):
    programs("unar", members)
    (tmp_path / f"of_unar/{TOP}/RGB/link.png").symlink_to("/etc/passwd")
    with pytest.raises(DataError, match="is a link; it is refused"):
        prepare_synthia(source)


def test_a_second_run_on_synthia_does_nothing(source, rar, programs, members, tree, capsys):
    programs("unar", members)
    prepare_synthia(source)
    before = tree(source.root)
    capsys.readouterr()
    prepare_synthia(source)
    assert tree(source.root) == before
    assert capsys.readouterr().out == ""


def test_where_one_program_fails_another_is_tried(source, rar, programs, members, capsys):
    programs("unar", {}, code=1)
    programs("bsdtar", members)
    prepare_synthia(source)
    assert is_right(source)
    assert "unar ended with code 1 and said: cannot read it" in capsys.readouterr().out


def test_an_archive_that_no_program_can_read_is_a_sentence(source, rar, programs):
    for name in ("unar", "7z"):
        programs(name, {}, code=2)
    with pytest.raises(DataError, match=r"unpacked: unar ended .* read it; 7z ended .* Delete it"):
        prepare_synthia(source)
    assert not (source.root / TOP).exists()


def test_without_a_program_nothing_is_downloaded(source, programs, server):
    with pytest.raises(DataError, match=r"install unar, bsdtar, unrar or 7z .*package unar"):
        prepare_synthia(source)
    assert not server.requests


def test_the_archive_of_synthia_is_downloaded(source, server, programs, members, capsys):
    programs("7z", members)
    (server.folder / "SYNTHIA_RAND_CITYSCAPES.rar").write_bytes(b"Rar!")
    prepare_synthia(replace(source, unofficial=True))
    assert is_right(source)
    assert "came over http, where anybody on the way can exchange it" in capsys.readouterr().out


def test_a_part_of_synthia_is_not_taken_for_the_whole(source, rar, programs, members):
    programs("unar", members)
    with pytest.raises(DataError, match="RGB: 2, officially 9,400"):
        prepare_synthia(replace(source, unofficial=False))
    assert not (source.root / TOP).exists()


def test_damaged_label_files_are_named_and_can_be_replaced(source, rar, programs, members):
    name = f"{TOP}/GT/LABELS/{BOTH[1]}.png"
    calls = programs("unar", {**members, name: members[name][:-20]})
    with pytest.raises(DataError, match=rf"LABELS/{BOTH[1]}\.png: .*\nDelete .* best with another"):
        prepare_synthia(source)
    assert not (source.root / TOP).exists()
    (source.root / f"{TOP}.part/GT/LABELS/{BOTH[1]}.png").write_bytes(members[name])
    prepare_synthia(source)
    assert is_right(source)
    assert len(calls.read_text().splitlines()) == 1  # nothing was unpacked again


def test_stopped_while_files_are_moved_it_goes_on(source, rar, programs, members, monkeypatch):
    calls = programs("unar", members)
    part = source.root / f"{TOP}.part"
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", stopped)
        with pytest.raises(KeyboardInterrupt):
            prepare_synthia(source)
    (part / "unpacked" / TOP / "RGB").mkdir(exist_ok=True)
    (part / f"RGB/{BOTH[0]}.png").rename(part / f"unpacked/{TOP}/RGB/{BOTH[0]}.png")
    prepare_synthia(source)
    assert is_right(source)
    assert len(calls.read_text().splitlines()) == 1


def stopped(*args, **kwargs):
    raise KeyboardInterrupt


def test_nothing_is_unpacked_into_the_folder_of_the_frames_itself(source):
    (source.root / "RGB").mkdir()
    assert prepare_synthia(source) == f"--data Synthia --data.root {source.root}"
    assert [path.name for path in source.root.iterdir()] == ["RGB"]
