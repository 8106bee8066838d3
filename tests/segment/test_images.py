from functools import partial

import numpy as np
import pytest
from PIL import Image

from deeplab_lit.pictures.masks import palette_image
from deeplab_lit.segment.images import (
    Job,
    Results,
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

    def __call__(self, image, present=None):
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
