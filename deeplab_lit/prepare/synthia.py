"""SYNTHIA-RAND-CITYSCAPES (Ros et al., 2016), from an archive that Python cannot read."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from deeplab_lit.atomic import atomic_folder
from deeplab_lit.data import Synthia
from deeplab_lit.data.check import first_of, summarize
from deeplab_lit.data.image import DataError
from deeplab_lit.prepare.archives import Archive, Source
from deeplab_lit.prepare.unpack import points_outside, under

TOP = "RAND_CITYSCAPES"
SYNTHIA = Archive(
    "SYNTHIA_RAND_CITYSCAPES.rar",
    "http://synthia-dataset.cvc.uab.cat/SYNTHIA_RAND_CITYSCAPES.rar",
)
FRAMES = {"RGB": 9400, "GT/LABELS": 9400}
PROGRAMS = {  # that unpack a .rar → their arguments
    "unar": "-quiet -force-overwrite -no-directory -output-directory {folder} {archive}",
    "bsdtar": "-x -f {archive} -C {folder}",
    "unrar": "x -idq -o+ {archive} {folder}/",
    "7z": "x -y -bd -o{folder} {archive}",
    "7zz": "x -y -bd -o{folder} {archive}",
}


def prepare_synthia(source: Source) -> str:
    """Put SYNTHIA-RAND-CITYSCAPES in place; return its options.

    Raises:
        DataError: the archive cannot be had or unpacked, the numbers of files are not the official
            ones, or label files are damaged.
    """
    folder = source.root / TOP
    places = (folder, source.root / "RGB")  # --root may be the unpacked folder itself
    if not any(place.is_dir() for place in places):
        with atomic_folder(folder) as part:
            _unpack(source, part)
            counts = {name: sum(1 for _ in (part / name).glob("*.png")) for name in FRAMES}
            source.expect("SYNTHIA-RAND-CITYSCAPES", counts, FRAMES)
            _check_files(part)
    return f"--data Synthia --data.root {shlex.quote(str(source.root))}"


def _unpack(source: Source, part: Path) -> None:
    """Fill the folder RAND_CITYSCAPES.part with RGB/, GT/ and what else the archive has."""
    by_hand = [path for path in source.root.iterdir() if path.name.startswith(f"{TOP}\\")]
    if by_hand:
        _move(by_hand, source.root, part)
    unpacked = part / "unpacked"  # every file of the archive lies there, or has been moved on
    if not unpacked.is_dir() and not (part / "RGB").is_dir():
        programs = [program for program in PROGRAMS if shutil.which(program)]
        if not programs:
            raise DataError(
                f"no program here unpacks {SYNTHIA.name}: install unar, bsdtar, unrar or 7z (on "
                "Debian and Ubuntu the package unar, or libarchive-tools, which has bsdtar; with "
                f"Homebrew unar), or unpack it yourself, so that {source.root / TOP / 'RGB'} is "
                "there"
            )
        archive = source.fetch(SYNTHIA)
        with atomic_folder(unpacked) as folder:
            unpack_with(programs, archive, folder)
    _move(unpacked.rglob("*"), unpacked, part)
    shutil.rmtree(unpacked, ignore_errors=True)
    if not (part / "RGB").is_dir():
        raise DataError(f"{source.root / SYNTHIA.name} has no {TOP}/RGB: is it another file?")


def unpack_with(programs: Iterable[str], archive: Path, folder: Path) -> None:
    """Unpack an archive with the first of some programs that can; each overwrites what is there.

    Raises:
        DataError: none can; with what each of them says.
    """
    said = []
    for program in programs:
        print(f"unpacking {archive.name} with {program}", flush=True)
        places = {"folder": folder.absolute(), "archive": archive.absolute()}
        command = [program, *(word.format(**places) for word in PROGRAMS[program].split())]
        run = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
        )
        if run.returncode == 0:
            return
        words = (run.stderr.strip() or run.stdout.strip()).splitlines() or ["nothing"]
        said.append(f"{program} ended with code {run.returncode} and said: {words[-1]}")
        print(said[-1], flush=True)
    raise DataError(
        f"{archive} could not be unpacked: {'; '.join(said)}. Delete it to download it again, or "
        "install another program (unar, bsdtar, unrar, 7z)"
    )


def _move(files: Iterable[Path], top: Path, part: Path) -> None:
    r"""Move files below RAND_CITYSCAPES/ to their places.

    Some versions of unrar write no folders, but files called "RAND_CITYSCAPES\RGB\0000000.png".

    Raises:
        DataError: a name leads outside, or a file is a link. It is not moved.
    """
    place_of = under(TOP)
    for path in sorted(files):
        name = str(path.relative_to(top)).replace("\\", "/")
        if path.is_symlink():
            raise DataError(f"{path} is a link; it is refused")
        if points_outside(name):
            raise DataError(f"{path} points outside; it is refused")
        place = place_of(str(PurePosixPath(name)))
        if place is None or not path.is_file():
            continue
        (part / place).parent.mkdir(parents=True, exist_ok=True)
        path.replace(part / place)


def _check_files(folder: Path) -> None:
    """Decode every image and label.

    Raises:
        DataError: names those that are damaged, and labels that lost their classes.
    """
    data = Synthia(str(folder))
    split = data.split("all")
    number, workers = len(split.ids), min(os.cpu_count() or 1, 8)
    problems = summarize(split, "SYNTHIA", len(data.classes), workers).problems
    if problems:
        raise DataError(
            "\n".join(first_of(problems, "SYNTHIA", number))
            + f"\nDelete {folder} and run the command again to unpack them anew, best with another "
            "program; or delete these labels with their images, and accept the rest with "
            "--unofficial true"
        )
    print(f"{number:,} images with their labels decoded, all sound", flush=True)
