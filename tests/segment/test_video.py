import cv2
import numpy as np
import pytest

from deeplab_lit.data import DataError
from deeplab_lit.segment.video import is_video, segment_video


class Painter:
    """Stands in for a network: the left half is class 0, the right half class 1."""

    colours = [(250, 0, 0), (0, 0, 250)]

    def __init__(self, stop_at=None):
        self.seen, self.stop_at = 0, stop_at

    def __call__(self, image):
        self.seen += 1
        if self.seen == self.stop_at:
            raise KeyboardInterrupt
        mask = np.zeros(image.shape[:2], np.uint8)
        mask[:, mask.shape[1] // 2 :] = 1
        return mask

    def cost(self, size):
        return f"{size}"


@pytest.fixture
def film(tmp_path):
    """Ten grey frames of 96×64 at 12 frames a second, brighter and brighter."""
    path = tmp_path / "film.mp4"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 12, (96, 64))
    for i in range(10):
        writer.write(np.full((64, 96, 3), 20 * i, np.uint8))
    writer.release()
    return path


def frames_of(path):
    film = cv2.VideoCapture(str(path))
    frames = []
    while True:
        there, frame = film.read()
        if not there:
            return frames, film.get(cv2.CAP_PROP_FPS)
        frames.append(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB))


def test_every_frame_has_its_masks_colours_over_it(film, tmp_path):
    written = segment_video(str(film), tmp_path / "out", Painter(), opacity=0.5)
    frames, rate = frames_of(written)
    assert (written.name, len(frames), rate) == ("film.mp4", 10, 12)
    for i, frame in enumerate(frames):
        assert frame.shape == (64, 96, 3)
        for x, colour in ((20, Painter.colours[0]), (76, Painter.colours[1])):
            expected = 0.5 * 20 * i + 0.5 * np.array(colour)
            np.testing.assert_allclose(frame[10:50, x].mean(0), expected, atol=12)  # it is lossy


def test_ctrl_c_leaves_what_is_done_as_a_whole_film(film, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        segment_video(str(film), tmp_path / "out", Painter(stop_at=5), opacity=0.5)
    frames, _ = frames_of(tmp_path / "out/film.mp4")
    assert len(frames) == 4
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["film.mp4"]


def test_what_is_no_film_is_refused(tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no film" * 100)
    for source, words in (
        (str(broken), "cannot be read as a video"),
        (str(tmp_path / "nothing.avi"), "no such file"),
        ("webcam:front", "expected webcam:0"),
        ("webcam:99", "no such camera"),
    ):
        with pytest.raises(DataError, match=words):
            segment_video(source, tmp_path / "out", Painter(), opacity=0.5)
    assert not (tmp_path / "out").exists()


def test_a_result_is_not_overwritten(film, tmp_path):
    segment_video(str(film), tmp_path / "out", Painter(), opacity=0.5)
    with pytest.raises(DataError, match="is there already"):
        segment_video(str(film), tmp_path / "out", Painter(), opacity=0.5)


@pytest.mark.parametrize(
    ("source", "expected"),
    [("a/b.MP4", True), ("webcam:0", True), ("photos", False), ("*.png", False)],
)
def test_videos_are_told_from_images(source, expected):
    assert is_video(source) is expected
