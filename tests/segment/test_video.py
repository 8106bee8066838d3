import errno

import cv2
import numpy as np
import pytest
from PIL import Image

from deeplab_lit.data import DataError
from deeplab_lit.segment.video import check_sources, cut_short, is_video, segment_video


class Painter:
    """Stands in for a network: the left half is class 0, the right half class 1."""

    colors = [(250, 0, 0), (0, 0, 250)]

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
    """Ten gray frames of 96×64 at 12 frames a second, brighter and brighter."""
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


def test_every_frame_has_its_masks_colors_over_it(film, tmp_path):
    written = segment_video(str(film), tmp_path / "out", Painter(), opacity=0.5)
    frames, rate = frames_of(written)
    assert (written.name, len(frames), rate) == ("film.mp4", 10, 12)
    for i, frame in enumerate(frames):
        assert frame.shape == (64, 96, 3)
        for x, color in ((20, Painter.colors[0]), (76, Painter.colors[1])):
            expected = 0.5 * 20 * i + 0.5 * np.array(color)
            np.testing.assert_allclose(frame[10:50, x].mean(0), expected, atol=12)  # it is lossy


def test_a_film_that_ctrl_c_ended_can_be_played_and_is_done_anew(film, tmp_path):
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        segment_video(str(film), out, Painter(stop_at=5), opacity=0.5, masks=True)
    assert {path.name for path in out.iterdir()} == {"film.part.mp4", "film_masks.part"}
    assert len(frames_of(out / "film.part.mp4")[0]) == 4
    assert segment_video(str(film), out, Painter(), opacity=0.5) == out / "film.mp4"
    assert len(frames_of(out / "film.mp4")[0]) == 10
    assert [path.name for path in out.iterdir()] == ["film.mp4"]


def test_a_film_that_is_whole_is_skipped_unless_its_masks_are_missing(film, tmp_path):
    out = tmp_path / "out"
    segment_video(str(film), out, Painter(), opacity=0.5)
    again = Painter()
    assert segment_video(str(film), out, again, opacity=0.5) is None
    assert again.seen == 0
    assert segment_video(str(film), out, again, opacity=0.5, masks=True)
    assert again.seen == 10
    assert segment_video(str(film), out, again, opacity=0.5, masks=True) is None
    assert segment_video(str(film), out, again, opacity=0.5) is None
    assert again.seen == 10


def test_each_frame_has_its_mask_if_masks_are_wanted(film, tmp_path):
    segment_video(str(film), tmp_path / "out", Painter(), opacity=0.5, masks=True)
    masks = sorted((tmp_path / "out/film_masks").iterdir())
    assert [path.name for path in masks] == [f"{i:06}.png" for i in range(10)]
    with Image.open(masks[3]) as mask:
        assert (mask.mode, mask.size) == ("P", (96, 64))
        assert np.asarray(mask)[0].tolist() == [0] * 48 + [1] * 48
        assert mask.getpalette()[:6] == [250, 0, 0, 0, 0, 250]


def test_ctrl_c_is_the_end_of_a_webcam_and_no_recording_is_overwritten(film, tmp_path, monkeypatch):
    capture, out = cv2.VideoCapture, tmp_path / "out"
    opened = lambda source: capture(str(film) if source == 0 else source)  # noqa: E731
    monkeypatch.setattr(cv2, "VideoCapture", opened)
    for name, frames in (("webcam0", 3), ("webcam0_2", 5)):
        painter = Painter(stop_at=frames + 1)
        assert segment_video("webcam:0", out, painter, 0.5, masks=True) == out / f"{name}.mp4"
        assert len(frames_of(out / f"{name}.mp4")[0]) == frames
        assert len(list((out / f"{name}_masks").iterdir())) == frames
    assert len(frames_of(out / "webcam0.mp4")[0]) == 3


def test_ctrl_c_right_after_a_frame_was_written_is_no_full_disk(film, tmp_path, monkeypatch):
    class Stopping:  # Python raises where OpenCV comes back
        fourcc = cv2.VideoWriter.fourcc

        def __init__(self, *args):
            self.number, self.writer = 0, real(*args)
            self.release, self.isOpened = self.writer.release, self.writer.isOpened

        def write(self, frame):
            self.number += 1
            self.writer.write(frame)
            if self.number == 4:
                raise KeyboardInterrupt

    real, capture = cv2.VideoWriter, cv2.VideoCapture
    monkeypatch.setattr(cv2, "VideoWriter", Stopping)
    opened = lambda source: capture(str(film) if source == 0 else source)  # noqa: E731
    monkeypatch.setattr(cv2, "VideoCapture", opened)
    written = segment_video("webcam:0", tmp_path / "out", Painter(), opacity=0.5, masks=True)
    assert len(frames_of(written)[0]) == 4
    assert len(list((tmp_path / "out/webcam0_masks").iterdir())) == 4


def test_a_recording_that_the_disk_cut_short_is_not_overwritten(film, tmp_path, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    (out / "webcam0.part.mp4").write_bytes(film.read_bytes())
    capture = cv2.VideoCapture
    opened = lambda source: capture(str(film) if source == 0 else source)  # noqa: E731
    monkeypatch.setattr(cv2, "VideoCapture", opened)
    assert segment_video("webcam:0", out, Painter(), opacity=0.5) == out / "webcam0_2.mp4"
    assert (out / "webcam0.part.mp4").read_bytes() == film.read_bytes()


def test_a_film_that_the_disk_did_not_take_is_not_called_done(film, tmp_path, monkeypatch):
    class Full:  # no subclass: one of OpenCV's classes corrupts memory when it is freed
        fourcc = cv2.VideoWriter.fourcc

        def __init__(self, *args):
            self.number, self.writer = 0, real(*args)
            self.release, self.isOpened = self.writer.release, self.writer.isOpened

        def write(self, frame):  # OpenCV tells nobody
            self.number += 1
            if self.number <= 6:
                self.writer.write(frame)

    real = cv2.VideoWriter
    monkeypatch.setattr(cv2, "VideoWriter", Full)
    with pytest.raises(OSError, match="only 6 of 10 frames") as error:
        segment_video(str(film), tmp_path / "out", Painter(), opacity=0.5)
    assert error.value.errno == errno.ENOSPC
    assert not (tmp_path / "out/film.mp4").exists()


def test_without_an_encoder_no_frame_is_segmented_in_vain(film, tmp_path, monkeypatch):
    class Closed:
        fourcc = cv2.VideoWriter.fourcc

        def __init__(self, *args):
            self.isOpened, self.release = lambda: False, lambda: None

    monkeypatch.setattr(cv2, "VideoWriter", Closed)
    painter = Painter()
    with pytest.raises(DataError, match=r"film\.part\.mp4 cannot be written: no MPEG-4 encoder"):
        segment_video(str(film), tmp_path / "out", painter, opacity=0.5)
    assert painter.seen == 0


def test_a_film_that_breaks_off_is_told(tmp_path, capsys):
    path = tmp_path / "cut.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12, (96, 64))
    for frame in np.random.default_rng(0).integers(256, size=(10, 64, 96, 3)):
        writer.write(frame.astype(np.uint8))
    writer.release()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    written = segment_video(str(path), tmp_path / "out", Painter(), opacity=0.5)
    number = len(frames_of(written)[0])
    assert 0 < number < 10
    assert f"it claims 10 frames, of which {number} could be read" in capsys.readouterr().out


def test_what_is_no_film_is_refused(tmp_path):
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no film" * 100)
    for source, words in (
        (str(broken), "cannot be read as a video"),
        ("webcam:99", "no such camera"),
    ):
        with pytest.raises(DataError, match=words):
            segment_video(source, tmp_path / "out", Painter(), opacity=0.5)
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_a_source_is_refused_before_anything_is_done(film, tmp_path):
    (tmp_path / "other").mkdir()
    other = tmp_path / "other/film.avi"
    other.write_bytes(film.read_bytes())
    for sources, words in (
        ([tmp_path / "nothing.avi"], "nothing.avi: no such file"),
        (["webcam:front"], "expected webcam:0"),
        ([film, other], "would both be called film.mp4"),
    ):
        with pytest.raises(DataError, match=words):
            check_sources([str(source) for source in sources])
    check_sources([str(film), str(film), "webcam:0", "webcam:1"])


@pytest.mark.parametrize(
    ("source", "expected"),
    [("a/b.MP4", True), ("webcam:0", True), ("photos", False), ("*.png", False)],
)
def test_videos_are_told_from_images(source, expected):
    assert is_video(source) is expected


@pytest.mark.parametrize("suffix", ["mp4", "avi"])
def test_a_film_damaged_inside_is_told_from_a_whole_one(tmp_path, suffix):
    path = tmp_path / f"film.{suffix}"
    codec = cv2.VideoWriter.fourcc(*("mp4v" if suffix == "mp4" else "MJPG"))
    writer = cv2.VideoWriter(str(path), codec, 12, (96, 64))
    noise = np.random.default_rng(0).integers(0, 256, (64, 96, 3)).astype(np.uint8)
    for i in range(50):
        writer.write(np.roll(noise, i, 1))
    writer.release()
    data = bytearray(path.read_bytes())
    half, end = len(data) // 2, len(data) * 9 // 10
    data[half:end] = bytes(end - half)
    path.write_bytes(data)
    written = segment_video(str(path), tmp_path / "out", Painter(), opacity=0.5)
    number = len(frames_of(written)[0])
    assert 0 < number < 48
    said = cut_short(str(path), tmp_path / "out")
    assert f"film.{suffix}: it is damaged or ends early: of the 50 frames" in said
    assert f"{number} could be read" in said


def test_of_a_whole_film_no_frame_is_missed(film, tmp_path):
    segment_video(str(film), tmp_path / "out", Painter(), opacity=0.5)
    assert cut_short(str(film), tmp_path / "out") is None


def test_films_may_begin_with_a_tilde(film, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(film.parent))
    check_sources(["~/film.mp4"])
    assert segment_video("~/film.mp4", tmp_path / "out", Painter(), opacity=0.5) is not None
