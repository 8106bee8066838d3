import io
import os
import struct
import subprocess
import sys
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from deeplab_lit.data import decode
from deeplab_lit.data.image import DataError, DataWarning, read_image, read_mask

Y, X = np.mgrid[:48, :64]
PICTURE = np.stack([X * 4, Y * 5, (X + Y) * 2], -1).astype(np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)


def encoded(pixels, format, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format, **options)
    return file.getvalue()


def written(path, data):
    path.write_bytes(data)
    return path


def png(width, height, rows, bits=8, color=0, extra=()):
    """A PNG by hand: rows with their filter bytes, and (name, content) of further chunks."""

    def chunk(name, content):
        body = name + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    parts = [(b"IHDR", header), *extra, (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.mark.parametrize("options", [{}, {"progressive": True}])
@pytest.mark.parametrize("part", [0.5, 0.8, 0.97])
@pytest.mark.parametrize("end", [b"\xff\xd9", b"\xff\xd9" + bytes(50)])
def test_a_jpeg_whose_data_end_early_is_refused_although_its_end_is_there(
    tmp_path, options, part, end, capfd
):
    data = encoded(NOISE, "JPEG", quality=90, **options)
    path = written(tmp_path / "early.jpg", data[: int(len(data) * part)] + end)
    with pytest.raises(DataError, match=r"early\.jpg: cannot be read .*the data end early"):
        read_image(path)
    assert capfd.readouterr().err == ""  # nothing of libjpeg's without the file's name


@pytest.mark.parametrize("part", [0.5, 0.8, 0.97])
@pytest.mark.parametrize("end", [b"", b"\xff\xd9"])
def test_a_jpeg_whose_tail_is_zeros_is_refused_or_named(tmp_path, part, end):
    """As a download leaves it where the room was taken before."""
    data = encoded(NOISE, "JPEG", quality=90)
    there = int(len(data) * part)
    path = written(tmp_path / "zeros.jpg", data[:there] + bytes(len(data) - there) + end)
    with warnings.catch_warnings():
        warnings.simplefilter("error", DataWarning)
        with pytest.raises((DataError, DataWarning), match=r"zeros\.jpg"):
            read_image(path)


def test_a_whole_jpeg_that_lacks_only_its_end_mark_is_read(tmp_path):
    data = encoded(PICTURE, "JPEG", quality=90)
    whole = read_image(written(tmp_path / "whole.jpg", data))
    np.testing.assert_array_equal(read_image(written(tmp_path / "x.jpg", data[:-2])), whole)


def test_a_jpeg_with_bytes_between_its_data_and_its_end_is_read_and_named(tmp_path, capfd):
    data = encoded(PICTURE, "JPEG", quality=90)
    path = written(tmp_path / "odd.jpg", data[:-2] + b"\x55" * 20 + b"\xff\xd9")
    with pytest.warns(DataWarning, match=r"odd\.jpg: damaged.*extraneous bytes before marker"):
        read = read_image(path)
    np.testing.assert_array_equal(read, read_image(written(tmp_path / "whole.jpg", data)))
    assert capfd.readouterr().err == ""


def test_many_threads_get_the_words_on_their_own_files(tmp_path):
    data = encoded(NOISE, "JPEG", quality=90)
    files = [
        written(tmp_path / f"{i}.jpg", data[: len(data) // 2] + b"\xff\xd9" if i % 3 == 0 else data)
        for i in range(60)
    ]

    def refused(path):
        try:
            read_image(path)
        except DataError:
            return True
        return False

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(refused, files)) == [i % 3 == 0 for i in range(60)]


def test_a_closed_stderr_does_not_keep_images_from_being_read(tmp_path):
    path = written(tmp_path / "x.jpg", encoded(PICTURE, "JPEG"))
    code = (
        "import os, sys; os.close(2); from pathlib import Path; "
        "from deeplab_lit.data.image import read_image; print(read_image(Path(sys.argv[1])).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert done.stdout == "(48, 64, 3)\n"


def test_every_flipped_bit_of_a_png_mask_is_refused(tmp_path):
    values = np.random.default_rng(0).integers(0, 3, (8, 8)).astype(np.uint8)
    data = bytearray(encoded(values, "PNG"))
    path = tmp_path / "mask.png"
    for place in range(len(data)):
        data[place] ^= 1 << place % 8
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"mask\.png: cannot be read as a mask"):
            read_mask(path)
        data[place] ^= 1 << place % 8


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_postscript_is_never_run_whatever_its_name(tmp_path, monkeypatch, suffix):
    def forbidden(*args, **kwargs):
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "check_call", forbidden)
    monkeypatch.setattr(subprocess, "Popen", forbidden)
    path = tmp_path / f"x.{suffix}"
    Image.fromarray(PICTURE).save(path, "EPS")
    for read in (read_image, read_mask):
        with pytest.raises(DataError, match="cannot be read"):
            read(path)


def test_content_and_suffix_of_an_image_may_disagree(tmp_path):
    path = written(tmp_path / "x.jpg", encoded(PICTURE, "PNG"))
    np.testing.assert_array_equal(read_image(path), PICTURE)


@pytest.mark.parametrize(
    ("name", "header"),
    [
        ("huge.png", png(60000, 60000, b"")),
        ("huge.ppm", b"P6 60000 60000 255\n" + bytes(100)),
        (
            "huge.bmp",
            b"BM" + struct.pack("<IIIIiiHHIIiiII", 99, 0, 54, 40, 60000, 60000, 1, 24, *[0] * 6),
        ),
    ],
)
def test_a_huge_size_in_a_header_is_refused_with_the_way_to_read_it(tmp_path, name, header):
    with pytest.raises(DataError, match=rf"{name}: cannot be read .*DEEPLAB_LIT_MAX_PIXELS"):
        read_image(written(tmp_path / name, header))


def test_a_jpeg_whose_header_claims_too_much_is_a_sentence(tmp_path):
    data = bytearray(encoded(PICTURE, "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 65000, 40000)
    with pytest.raises(DataError, match=r"bad\.jpg: cannot be read .*DEEPLAB_LIT_MAX_PIXELS"):
        read_image(written(tmp_path / "bad.jpg", bytes(data)))


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_one_limit_of_pixels_holds_for_all_formats_and_names_its_variable(
    tmp_path, monkeypatch, suffix
):
    monkeypatch.setattr(decode, "MAX_PIXELS", 48 * 64 - 1)
    Image.fromarray(PICTURE).save(tmp_path / f"x.{suffix}")
    with pytest.raises(DataError, match=r"64×48 pixels, more than 3,071.*DEEPLAB_LIT_MAX_PIXELS"):
        read_image(tmp_path / f"x.{suffix}")
    monkeypatch.setattr(decode, "MAX_PIXELS", 48 * 64)
    assert read_image(tmp_path / f"x.{suffix}").shape == PICTURE.shape


@pytest.mark.parametrize("format", ["GIF", "TIFF", "WEBP", "PNG"])
def test_several_pages_or_frames_are_refused(tmp_path, format):
    pages = [Image.fromarray(np.roll(PICTURE, i * 9, 1)) for i in range(3)]
    path = tmp_path / "pages.x"
    pages[0].save(path, format, save_all=True, append_images=pages[1:])
    for read in (read_image, read_mask):
        with pytest.raises(DataError, match=r"it holds 3 pictures"):
            read(path)


def test_a_tiff_with_its_own_preview_is_read(tmp_path):
    small = Image.fromarray(PICTURE[::4, ::4])
    Image.fromarray(PICTURE).save(tmp_path / "x.tif", save_all=True, append_images=[small])
    np.testing.assert_array_equal(read_image(tmp_path / "x.tif"), PICTURE)


@pytest.mark.parametrize("highest", [200, 1000, 4000])
@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("channels", [1, 3])
def test_few_bits_in_16_are_never_black_in_silence(tmp_path, highest, suffix, channels):
    deep = (NOISE[..., :channels].astype(np.uint16) * highest // 255).squeeze()
    cv2.imwrite(str(tmp_path / f"deep.{suffix}"), deep)
    with pytest.raises(DataError, match=rf"deep\.{suffix}.* none is above {deep.max()}: .*black"):
        read_image(tmp_path / f"deep.{suffix}")


def test_black_is_black_in_16_bits_too(tmp_path):
    cv2.imwrite(str(tmp_path / "x.png"), np.zeros((4, 4), np.uint16))
    assert not read_image(tmp_path / "x.png").any()


@pytest.mark.parametrize(("bits", "shift"), [(12, 0), (12, 4), (10, 0)])
def test_a_png_that_says_its_significant_bits_is_scaled_by_them(tmp_path, bits, shift):
    """PNG wants values scaled to 16 bits (shift 4 here); cameras do not do it."""
    values = np.linspace(0, 2**bits - 1, 64).astype(np.uint16).reshape(8, 8)
    rows = b"".join(b"\0" + row.tobytes() for row in (values << shift).astype(">u2"))
    path = written(tmp_path / "x.png", png(8, 8, rows, 16, extra=[(b"sBIT", bytes([bits]))]))
    expected = values.astype(float) / (2**bits - 1) * 255
    np.testing.assert_allclose(read_image(path)[..., 1], expected, atol=1.01)


def test_a_tiff_that_says_its_largest_value_is_scaled_by_it(tmp_path):
    values = np.linspace(0, 4095, 64).astype(np.uint16).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "x.tif", tiffinfo={281: 4095})
    np.testing.assert_allclose(read_image(tmp_path / "x.tif")[..., 0], values / 4095 * 255, atol=1)


def test_deep_colors_are_turned_as_exif_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    rows = b"".join(b"\0" + row.tobytes() for row in (NOISE.astype(">u2") * 257))
    chunk = exif.tobytes().removeprefix(b"Exif\0\0")
    path = written(tmp_path / "x.png", png(64, 48, rows, 16, 2, extra=[(b"eXIf", chunk)]))
    np.testing.assert_array_equal(read_image(path), np.rot90(NOISE, -1))


@pytest.mark.parametrize(("bits", "row"), [(2, b"\0\x1b"), (4, b"\0\x0f\x12")])
def test_gray_masks_of_few_bits_whose_values_are_stretched_are_refused(tmp_path, bits, row):
    """Pillow reads class 3 of 2 bits as 255, which is void."""
    with pytest.raises(DataError, match="stretched"):
        read_mask(written(tmp_path / "x.png", png(4, 1, row, bits)))


def test_an_inverted_tiff_mask_is_refused(tmp_path):
    Image.fromarray(PICTURE[..., 0]).save(tmp_path / "x.tif", tiffinfo={262: 0})
    with pytest.raises(DataError, match="inverted"):
        read_mask(tmp_path / "x.tif")


def test_a_pgm_mask_with_another_largest_value_is_refused(tmp_path):
    with pytest.raises(DataError, match="stretched"):
        read_mask(written(tmp_path / "x.pgm", b"P5 2 2 3\n\0\1\2\3"))
    whole = written(tmp_path / "y.pgm", b"P5 2 2 255\n\0\1\2\3")
    np.testing.assert_array_equal(read_mask(whole), [[0, 1], [2, 3]])


@pytest.mark.parametrize(
    ("format", "options"),
    [("JPEG", {}), ("WEBP", {"quality": 80}), ("TIFF", {"compression": "jpeg"})],
)
def test_masks_in_a_lossy_format_are_refused_with_the_reason(tmp_path, format, options):
    path = written(tmp_path / "x.png", encoded(PICTURE[..., 0].copy(), format, **options))
    with pytest.raises(DataError, match=f"{format} with a loss: it changes .*classes"):
        read_mask(path)


@pytest.mark.parametrize("bad", [np.nan, 0.5, np.inf])
def test_floating_point_masks_must_hold_whole_numbers(tmp_path, bad):
    values = np.array([[0, 1], [2, 255]], np.float32)
    Image.fromarray(values).save(tmp_path / "x.tif")
    np.testing.assert_array_equal(read_mask(tmp_path / "x.tif"), values)
    values[0, 0] = bad
    Image.fromarray(values).save(tmp_path / "x.tif")
    with pytest.raises(DataError, match=r"x\.tif: (floating-point values|mask values)"):
        read_mask(tmp_path / "x.tif")


def test_a_progressive_jpeg_that_ends_between_its_scans_is_refused(tmp_path):
    rng = np.random.default_rng(0)
    smooth = cv2.resize(rng.integers(0, 256, (9, 12, 3), np.uint8), (240, 180))
    data = io.BytesIO()
    Image.fromarray(smooth).save(data, "JPEG", progressive=True)
    whole = data.getvalue()
    scans = [at for at in range(len(whole)) if whole[at : at + 2] == b"\xff\xda"]
    assert len(scans) > 3
    read_image(written(tmp_path / "whole.jpg", whole))
    for number, at in enumerate(scans[1:]):
        with pytest.raises(DataError, match="end early"):
            read_image(written(tmp_path / f"{number}.jpg", whole[:at]))


def test_a_pbm_is_no_mask(tmp_path):
    Image.fromarray(np.eye(8, dtype=bool)).save(tmp_path / "a.pbm")
    with pytest.raises(DataError, match="PBM"):
        read_mask(tmp_path / "a.pbm")


@pytest.mark.parametrize("orientation", [1, 2, 3, 6, 8])
def test_images_of_any_depth_and_format_are_turned_once(tmp_path, orientation):
    upright = np.zeros((4, 6), np.uint8)
    upright[0, 1:] = 255
    upright[1:3, 0] = 128
    turns = {1: 0, 2: 0, 3: 2, 6: 1, 8: 3}  # quarter turns that a viewer makes, counterclockwise: −
    as_shown = np.rot90(upright, -turns[orientation])
    if orientation == 2:
        as_shown = upright[:, ::-1]
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name, pixels in {
        "8.tif": upright,
        "8.png": upright,
        "16.tif": upright.astype(np.uint16) * 257,
        "16.png": upright.astype(np.uint16) * 257,
    }.items():
        path = tmp_path / name
        more = {"tiffinfo": {274: orientation}} if name.endswith("tif") else {"exif": exif}
        Image.fromarray(pixels).save(path, **more)
        np.testing.assert_array_equal(read_image(path)[..., 0], as_shown, name)


def test_a_tiff_mask_with_an_orientation_is_refused(tmp_path):
    Image.fromarray(np.eye(4, 6, dtype=np.uint8)).save(tmp_path / "m.tif", tiffinfo={274: 3})
    with pytest.raises(DataError, match="orientation"):
        read_mask(tmp_path / "m.tif")


LABELS = np.zeros((40, 50), np.uint8)
LABELS[5:20, 8:30], LABELS[22:, 10:] = 3, 7


@pytest.fixture
def mat(tmp_path):
    path = tmp_path / "2008_1.mat"
    savemat(path, {"GTcls": {"Segmentation": LABELS}}, do_compression=True)
    return path


def test_a_matlab_mask_is_read_compressed_or_not(mat, tmp_path):
    plain = tmp_path / "plain.mat"
    savemat(plain, {"GTcls": {"Segmentation": LABELS}})
    for path in (mat, plain):
        np.testing.assert_array_equal(read_mask(path), LABELS)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_flipped_bit_in_compressed_content_is_refused_or_changes_nothing(mat):
    """In a process of its own, which SciPy alone ends with a signal at some of them."""
    content = mat.read_bytes()
    child = os.fork()
    if child == 0:
        ends = 1
        try:
            for place in range(128, len(content)):
                damaged = bytearray(content)
                damaged[place] ^= 1 << place % 8
                mat.write_bytes(damaged)
                try:
                    assert np.array_equal(read_mask(mat), LABELS)
                except DataError:
                    continue
            ends = 0
        finally:
            os._exit(ends)
    assert os.waitpid(child, 0)[1] == 0
