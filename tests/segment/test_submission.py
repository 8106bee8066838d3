import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deeplab_lit.data import DataError
from deeplab_lit.data.classes import voc_color
from deeplab_lit.data.image import read_mask
from deeplab_lit.segment.submission import Submission

LABEL_IDS = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]
NAMES = {
    "voc": ["2008_000006.jpg", "2008_000011.jpg"],
    "cityscapes": [f"berlin_{i:06}_000019_leftImg8bit.png" for i in range(2)],
}
CLASSES = {"voc": 21, "cityscapes": 19}


@pytest.fixture(params=["voc", "cityscapes"])
def server(request):
    return request.param


@pytest.fixture
def images(tmp_path, server, write_image):
    paths = [tmp_path / "images" / name for name in NAMES[server]]
    for seed, path in enumerate(paths):
        write_image(path, seed, size=(20 + seed, 30))
    return paths


@pytest.fixture
def written(tmp_path, server, images):
    """A submission with random masks, and the masks."""
    submission = Submission(server, tmp_path / "out", images)
    rng, masks = np.random.default_rng(0), []
    for image in images:
        with Image.open(image) as picture:
            masks.append(rng.integers(CLASSES[server], size=picture.size[::-1]).astype(np.uint8))
        submission.path(image).parent.mkdir(parents=True, exist_ok=True)
        submission.picture(masks[-1]).save(submission.path(image))
    return submission, masks


def test_what_is_unpacked_are_the_masks(tmp_path, server, written):
    submission, masks = written
    submission.check()
    archive = submission.pack()
    there = tmp_path / "unpacked"
    if server == "voc":
        assert archive.name == "results.tgz"
        with tarfile.open(archive) as tar:
            names = tar.getnames()
            tar.extractall(there, filter="data")
        folder = "results/VOC2012/Segmentation/comp6_test_cls"
        assert names == [f"{folder}/{Path(name).stem}.png" for name in NAMES[server]]
        values = np.arange(21)
    else:
        assert archive.name == "results.zip"
        with zipfile.ZipFile(archive) as zipped:
            names = zipped.namelist()
            zipped.extractall(there)
        assert names == [f"results/berlin_00000{i}_000019_pred_labelIds.png" for i in range(2)]
        values = np.array(LABEL_IDS)
    for name, mask in zip(names, masks, strict=True):
        np.testing.assert_array_equal(read_mask(there / name), values[mask])
        with Image.open(there / name) as picture:
            if server == "voc":
                assert picture.mode == "P"
                assert picture.getpalette()[:768] == [c for i in range(256) for c in voc_color(i)]
            else:
                assert picture.mode == "L"
    assert not list((tmp_path / "out").glob(".*"))


def test_every_fault_is_found(tmp_path, written):
    submission, masks = written
    first = submission.path(submission.images[0])
    whole = first.read_bytes()

    def fault(match):
        with pytest.raises(DataError, match=match):
            submission.check()
        first.write_bytes(whole)
        submission.check()

    first.unlink()
    fault("is missing")
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(first)
    fault(r"5×5 pixels, its image 30×20")
    Image.fromarray(np.full_like(masks[0], 100)).save(first)
    fault("has the value 100")
    first.write_bytes(whole[: len(whole) // 2])
    fault("cannot be read")
    extra = first.with_name("extra.png")
    extra.write_bytes(whole)
    with pytest.raises(DataError, match=r"extra\.png: no image is called so"):
        submission.check()


def test_the_official_list_decides_which_images_are_submitted(tmp_path, server, images, write_list):
    ids = [path.stem.removesuffix("_leftImg8bit") for path in images]
    listed = tmp_path / "test.txt"
    write_list(listed, ids)
    assert Submission(server, tmp_path / "out", images, str(listed)).images == images
    listed.write_bytes(b"\xef\xbb\xbf" + listed.read_bytes())
    assert Submission(server, tmp_path / "out", images, str(listed)).images == images
    write_list(listed, [*ids, ids[0]])
    with pytest.raises(DataError, match=rf"--ids .*twice or more \({ids[0]}"):
        Submission(server, tmp_path / "out", images, str(listed))
    write_list(listed, [*ids, "another"])
    with pytest.raises(DataError, match="another has no image"):
        Submission(server, tmp_path / "out", images, str(listed))
    write_list(listed, ids[:1])
    assert Submission(server, tmp_path / "out", images, str(listed)).images == images[:1]
    with pytest.raises(DataError, match="cannot be read as a list"):
        Submission(server, tmp_path / "out", images, str(tmp_path / "nowhere.txt"))


def test_two_images_of_one_id_are_refused(tmp_path, server, images):
    other = tmp_path / "other" / images[0].name
    with pytest.raises(DataError, match="have the same id"):
        Submission(server, tmp_path / "out", [*images, other])


def test_a_network_of_other_classes_is_refused(tmp_path, server, images):
    submission = Submission(server, tmp_path / "out", images)
    submission.check_classes(CLASSES[server])
    with pytest.raises(DataError, match=f"wants {CLASSES[server]} classes, the network has 7"):
        submission.check_classes(7)
