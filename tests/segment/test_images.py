from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplab_lit.data.image import DataError, DataWarning
from deeplab_lit.pictures.masks import palette_image
from deeplab_lit.segment.images import (
    Job,
    Results,
    find_images,
    is_done,
    save,
    segment_images,
)
from deeplab_lit.segment.segmenter import Segmenter


class Ones(Segmenter):
    """Stands in for a network: everything is class 1."""

    colors = [(0, 0, 0), (200, 0, 0)]

    def __init__(self):
        self.crf = None

    def __call__(self, image):
        return np.ones(image.shape[:2], np.uint8)

    def cost(self, size):
        return f"{size}"


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
def test_a_disk_that_takes_only_a_part_leaves_no_picture(tmp_path, name):
    """As where it is full: the first write comes through in part, the next one fails."""
    resource = pytest.importorskip("resource")
    noise = np.random.default_rng(0).integers(256, size=(200, 200, 3)).astype(np.uint8)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            save(Image.fromarray(noise), tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("num_workers", [0, 1])
def test_masks_and_overlays_are_written_and_a_broken_image_is_told(tmp_path, num_workers):
    Image.new("RGB", (30, 20), (100, 100, 100)).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    jobs = [
        Job(tmp_path / f"{n}.png", tmp_path / f"m/{n}.png", tmp_path / f"o/{n}.jpg") for n in "ab"
    ]
    as_picture = partial(palette_image, colors=Ones.colors)
    results = Results(as_picture, Ones.colors, opacity=0.5)
    problems = segment_images(Ones(), jobs, results, num_workers=num_workers)
    assert len(problems) == 1
    assert "b.png" in problems[0]
    assert np.asarray(Image.open(tmp_path / "m/a.png")).tolist() == [[1] * 30] * 20
    shown = np.asarray(Image.open(tmp_path / "o/a.jpg"))
    np.testing.assert_allclose(shown[10, 15], (150, 50, 50), atol=4)
    assert not (tmp_path / "m/b.png").exists()


def test_a_legend_below_an_overlay_has_the_colors_of_the_classes_in_it(tmp_path):
    Image.new("RGB", (200, 20), (100, 100, 100)).save(tmp_path / "a.png")
    jobs = [Job(tmp_path / "a.png", tmp_path / "m.png", tmp_path / "o.jpg")]
    classes = {"ground": (0, 0, 200), "tree": (200, 0, 0)}
    as_picture = partial(palette_image, colors=Ones.colors)
    results = Results(as_picture, Ones.colors, opacity=0.5, legend=classes)
    segment_images(Ones(), jobs, results, num_workers=0)
    shown = np.asarray(Image.open(tmp_path / "o.jpg")).astype(int)
    np.testing.assert_allclose(shown[10, 15], (150, 50, 50), atol=4)
    assert (abs(shown[22:] - (200, 0, 0)).max(-1) < 20).any()
    assert not (abs(shown[22:] - (0, 0, 200)).max(-1) < 60).any()


def test_a_result_is_done_only_for_the_very_image_it_was_made_of(tmp_path):
    one, two = tmp_path / "one/x.png", tmp_path / "two/x.png"
    for path, shade in ((one, 100), (two, 200)):
        path.parent.mkdir()
        Image.new("RGB", (30, 20), (shade,) * 3).save(path)
    as_picture = partial(palette_image, colors=Ones.colors)
    job = Job(one, tmp_path / "m/x.png", tmp_path / "o/x.jpg")
    assert not is_done(job)
    segment_images(Ones(), [job], Results(as_picture, Ones.colors), num_workers=0)
    assert is_done(job)
    assert not is_done(job._replace(image=two))
    job.overlay.unlink()
    assert not is_done(job)


@pytest.fixture
def tree(tmp_path, monkeypatch):
    for name in ("a.png", "b.jpg", "deep/a.png", "deep/er/c.tif", "note.txt"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch() if path.suffix == ".txt" else Image.new("RGB", (2, 2)).save(path)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "in"


pytestmark = pytest.mark.filterwarnings("ignore:.*passed over.*note.txt")


@pytest.mark.parametrize(
    ("inputs", "names"),
    [
        (["in"], ["a", "b", "deep/a", "deep/er/c"]),
        (["in/a.png"], ["a"]),
        (["in/*.png"], ["a"]),
        (["in/**/*.png"], ["a", "deep/a"]),
        (["in/b.jpg", "in/deep"], ["b", "a", "er/c"]),
        (["in", "in/deep/../a.png"], ["a", "b", "deep/a", "deep/er/c"]),
        (["in/[ab].*"], ["a", "b"]),
    ],
)
def test_files_folders_and_globs_are_found_in_order(tree, inputs, names):
    found = find_images(inputs, leave_out=Path("out"))
    assert [str(name) for name in found] == names
    assert all(path.is_file() for path in found.values())


def test_results_below_the_folder_are_left_out(tree):
    found = find_images(["in"], leave_out=Path("in/deep"))
    assert [str(name) for name in found] == ["a", "b"]


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (["in/*.bmp"], "in/*.bmp: no image there"),
        (["nowhere"], "nowhere: no image there"),
        (["in/note.txt.d"], "no image there"),
        (["in/a.png", "in/deep"], "would both be called a"),
    ],
)
def test_what_cannot_be_done_is_said(tree, inputs, words):
    with pytest.raises(DataError, match=r"no image|both be called") as error:
        find_images(inputs, leave_out=Path("out"))
    assert words in str(error.value)


def test_hidden_files_are_no_images_and_links_to_folders_are_followed(tree, tmp_path):
    for name in ("._a.png", ".ipynb_checkpoints/a.png", "__MACOSX/a.png"):
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_bytes(b"")
    (tree / "deep").rename(tmp_path / "elsewhere")
    (tree / "deep").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/circle").symlink_to(tree)
    for given in ("in", "in/**/*.*"):
        found = find_images([given], leave_out=Path("out"))
        assert [str(name) for name in found][:3] == ["a", "b", "deep/a"]
    assert len(find_images(["in"], leave_out=Path("out"))) == 4


def test_images_of_one_name_keep_their_suffix(tree):
    Image.new("RGB", (2, 2)).save(tree / "a.jpg")
    found = find_images(["in"], leave_out=Path("out"))
    assert [str(name) for name in found] == ["a.jpg", "a.png", "b", "deep/a", "deep/er/c"]


@pytest.mark.parametrize("given", ["", " "])
def test_an_empty_name_is_not_the_current_folder(tree, given):
    with pytest.raises(DataError, match="--images got an empty name"):
        find_images([given], leave_out=Path("out"))


def test_files_that_are_no_images_are_counted(tree):
    (tree / "deep/b.heic").touch()
    with pytest.warns(
        DataWarning, match=r"in: 2 files are passed over .*: deep/b\.heic, note\.txt"
    ):
        find_images(["in"], leave_out=Path("out"))


def test_names_may_begin_with_a_tilde(tree, monkeypatch):
    monkeypatch.setenv("HOME", str(tree.parent))
    assert len(find_images(["~/in/*.jpg", "~/in/deep"], leave_out=Path("out"))) == 3


def test_two_links_to_a_folder_are_both_followed_and_circles_end(tmp_path):
    (tmp_path / "real").mkdir()
    Image.new("L", (2, 2)).save(tmp_path / "real/x.png")
    images = tmp_path / "images"
    images.mkdir()
    for name in ("rgb", "ir"):
        (images / name).symlink_to(tmp_path / "real")
    (images / "again").symlink_to(images)
    found = find_images([str(images)], tmp_path / "out")
    assert sorted(map(str, found)) == ["ir/x", "rgb/x"]
