import numpy as np
import pytest
from PIL import Image, ImageOps
from scipy.io import savemat

from deeplab_lit.data.image import DataError, read_image, read_mask

Y, X = np.mgrid[:48, :64]
PICTURE = np.stack([X * 4, Y * 5, (X + Y) * 2], -1).astype(np.uint8)  # smooth: survives JPEG
VALUES = np.array([[0, 1, 15], [20, 255, 0]], np.uint8)


def save(path, pixels, mode=None, **options):
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path, **options)
    return path


def palette_image(values):
    image = Image.fromarray(values)
    image.putpalette([(i * 7 + channel) % 256 for i in range(256) for channel in range(3)])
    return image


def difference(one, other):
    assert one.shape == other.shape
    return np.abs(one.astype(int) - other.astype(int)).max()


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm"])
def test_lossless_images_come_exactly_as_rgb(tmp_path, suffix):
    read = read_image(save(tmp_path / f"x.{suffix}", PICTURE))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, PICTURE)


@pytest.mark.parametrize("suffix", ["jpg", "webp"])
@pytest.mark.parametrize("channel", [0, 1, 2])
def test_color_order_is_rgb(tmp_path, suffix, channel):
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[..., channel] = 200
    read = read_image(save(tmp_path / f"x.{suffix}", pixels, quality=95))
    assert difference(read, pixels) <= 6


def test_jpeg_is_what_pillow_decodes(tmp_path):
    path = save(tmp_path / "x.jpg", PICTURE, quality=90)
    with Image.open(path) as image:
        assert difference(read_image(path), np.asarray(image)) <= 2


def test_progressive_and_gray_jpeg(tmp_path):
    progressive = read_image(save(tmp_path / "p.jpg", PICTURE, progressive=True, quality=95))
    assert difference(progressive, PICTURE) <= 16
    gray = read_image(save(tmp_path / "g.jpg", PICTURE[..., 0], quality=95))
    assert difference(gray, PICTURE[..., :1].repeat(3, -1)) <= 8


def test_cmyk_jpeg_keeps_its_colors(tmp_path):
    read = read_image(save(tmp_path / "x.jpg", PICTURE, "CMYK", quality=95))
    assert difference(read, PICTURE) <= 16


def test_jpeg_with_bytes_after_its_end(tmp_path):
    path = save(tmp_path / "x.jpg", PICTURE, quality=90)
    clean = read_image(path)
    path.write_bytes(path.read_bytes() + bytes(100))
    assert difference(read_image(path), clean) <= 2


def test_gray_becomes_rgb(tmp_path):
    read = read_image(save(tmp_path / "x.png", PICTURE[..., 0]))
    np.testing.assert_array_equal(read, PICTURE[..., :1].repeat(3, -1))


def test_one_bit_image_is_black_and_white(tmp_path):
    read = read_image(save(tmp_path / "x.png", VALUES > 10))
    np.testing.assert_array_equal(read[..., 0], (VALUES > 10) * 255)


@pytest.mark.parametrize("alpha", [0, 100])
def test_transparency_is_dropped(tmp_path, alpha):
    rgba = np.dstack([PICTURE, np.full(PICTURE.shape[:2], alpha, np.uint8)])
    np.testing.assert_array_equal(read_image(save(tmp_path / "x.png", rgba)), PICTURE)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_gray_is_scaled_to_8_bits(tmp_path, suffix):
    pixels = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)  # 0 … 65535
    read = read_image(save(tmp_path / f"x.{suffix}", pixels))
    np.testing.assert_array_equal(read, np.arange(256).reshape(16, 16, 1).repeat(3, -1))


def test_palette_image_comes_in_its_colors(tmp_path):
    read = read_image(save(tmp_path / "x.png", palette_image(VALUES)))
    expected = [[[(v * 7 + c) % 256 for c in range(3)] for v in row] for row in VALUES.tolist()]
    np.testing.assert_array_equal(read, expected)


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_obeyed(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"x.{suffix}", PICTURE, exif=exif, quality=95)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    assert expected.shape[:2] == ((48, 64) if orientation < 5 else (64, 48))
    assert difference(read_image(path), expected) <= 2


@pytest.mark.parametrize("part", [0.2, 0.6, 0.95])
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "bmp", "webp", "gif", "ppm"])
def test_truncated_image_is_refused_by_name(tmp_path, suffix, part):
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    path = save(tmp_path / f"cut.{suffix}", noise)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(DataError, match=f"cut.{suffix}: cannot be read as an image"):
        read_image(path)


@pytest.mark.parametrize("read", [read_image, read_mask])
@pytest.mark.parametrize("content", [b"", b"hello", b"\xff\xd8\xff not a jpeg \xff\xd9", None])
def test_what_is_no_image_is_refused_by_name(tmp_path, read, content):
    path = tmp_path / "strange.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=r"strange\.png: cannot be read"):
        read(path)


def test_floating_point_image_is_refused(tmp_path):
    path = save(tmp_path / "x.tif", np.ones((4, 4), np.float32))
    with pytest.raises(DataError, match=r"x\.tif.*floating-point"):
        read_image(path)


@pytest.mark.parametrize("make", [palette_image, Image.fromarray])
@pytest.mark.parametrize("options", [{}, {"transparency": 0}])
def test_mask_values_are_indices_and_not_colors(tmp_path, make, options):
    read = read_mask(save(tmp_path / "x.png", make(VALUES), **options))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, VALUES)


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_mask_with_few_bits_a_pixel(tmp_path, bits):
    values = np.arange(12, dtype=np.uint8).reshape(3, 4) % 2**bits
    read = read_mask(save(tmp_path / "x.png", palette_image(values), bits=bits))
    np.testing.assert_array_equal(read, values)


def test_one_bit_mask_holds_0_and_1(tmp_path):
    read = read_mask(save(tmp_path / "x.png", VALUES > 10))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, VALUES > 10)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32])
def test_wide_mask_with_small_values_is_read(tmp_path, dtype):
    read = read_mask(save(tmp_path / "x.tif", VALUES.astype(dtype)))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, VALUES)


def test_mask_values_above_255_are_refused(tmp_path):
    path = save(tmp_path / "x.png", VALUES.astype(np.uint16) + 1)
    with pytest.raises(DataError, match=r"x\.png: mask values 1…256"):
        read_mask(path)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_color_mask_is_refused(tmp_path, mode):
    path = save(tmp_path / "x.png", PICTURE, mode)
    with pytest.raises(DataError, match=rf"x\.png.*mode {mode}\."):
        read_mask(path)


def test_mask_of_sbd(sbd_root):
    read = [read_mask(path) for path in sorted((sbd_root / "cls").glob("*.mat"))]
    assert [mask.dtype for mask in read] == [np.uint8] * 4
    assert [np.unique(mask).tolist() for mask in read] == [[0], [1], [2], [3]]
    assert {mask.shape for mask in read} == {(24, 32)}


@pytest.mark.parametrize("part", [0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.97, 0.99])
def test_truncated_mat_file_is_refused_by_name(sbd_root, part):
    path = next((sbd_root / "cls").glob("*.mat"))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    with pytest.raises(DataError, match=f"{path.name}: cannot be read"):
        read_mask(path)


@pytest.mark.parametrize("content", [{"x": 1}, {"GTcls": {"x": 1}}, {"GTcls": 1}])
def test_other_mat_files_are_refused_by_name(tmp_path, content):
    savemat(tmp_path / "x.mat", content)
    with pytest.raises(DataError, match=r"x\.mat"):
        read_mask(tmp_path / "x.mat")
