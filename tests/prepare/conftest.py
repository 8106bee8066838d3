"""Official archives in miniature."""

import io
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from deeplab_lit.prepare.archives import Source

SIZE = (20, 30)  # height × width of all images


def _encoded(pixels, kind, palette=None):
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    if palette is not None:
        image.putpalette([channel for color in palette for channel in color])
    image.save(buffer, kind)
    return buffer.getvalue()


class Files:
    """The content of files: random ones that the same seed gives again."""

    @staticmethod
    def mask(high, seed=0):
        """Values in 0…high, both of which occur, (H,W) uint8."""
        values = np.random.default_rng(seed).integers(0, high + 1, SIZE).astype(np.uint8)
        values[0, :2] = 0, high
        return values

    @staticmethod
    def jpg(seed=0):
        pixels = np.random.default_rng(seed).integers(0, 256, (*SIZE, 3)).astype(np.uint8)
        return _encoded(pixels, "JPEG")

    @staticmethod
    def png(pixels, palette=None):
        return _encoded(np.asarray(pixels, np.uint8), "PNG", palette)

    @staticmethod
    def mat(**matrices):
        buffer = io.BytesIO()
        savemat(buffer, matrices, do_compression=True)
        return buffer.getvalue()

    @staticmethod
    def lines(ids):
        return "".join(f"{id}\n" for id in ids).encode()

    @staticmethod
    def tar(path, members, mode="w"):
        with tarfile.open(path, mode) as file:
            for name, content in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(content)
                file.addfile(info, io.BytesIO(content))

    @staticmethod
    def zip(path, members):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
            for name, content in members.items():
                file.writestr(name, content)


@pytest.fixture(scope="session")
def files():
    """Makes the content of files, and archives of them."""
    return Files


@pytest.fixture
def source(tmp_path, server):
    """An empty root, the server as the mirror, and archives that need not be the official ones."""
    root = tmp_path / "root"
    root.mkdir()
    return Source(root, server.url, unofficial=True)


@pytest.fixture
def tree():
    """folder → {path in it: (size, time of change)} of all files."""

    def list_all(folder):
        found = [path for path in folder.rglob("*") if path.is_file()]
        return {
            str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
            for path in found
        }

    return list_all


@pytest.fixture
def voc_archives(server, files):
    """VOC 2012 with 2 train and 1 val images, and SBD with 4 masks, 2 of them of other images."""
    ids, top = ["2007_1", "2007_2", "2007_3", "2008_4", "2008_5"], "VOCdevkit/VOC2012"
    members = {f"{top}/JPEGImages/{id}.jpg": files.jpg(seed) for seed, id in enumerate(ids)}
    lists = {"train": ids[:2], "val": ids[2:3], "trainval": ids[:3]}
    for name, listed in lists.items():
        members[f"{top}/ImageSets/Segmentation/{name}.txt"] = files.lines(listed)
    for seed, id in enumerate(ids[:3]):
        mask = files.mask(20, seed)
        mask[-1] = 255
        members[f"{top}/SegmentationClass/{id}.png"] = files.png(mask, np.zeros((256, 3), int))
    files.tar(server.folder / "VOCtrainval_11-May-2012.tar", members)
    top, members = "benchmark_RELEASE/dataset", {}
    for seed, id in ((1, ids[0]), (2, ids[2]), (4, ids[3]), (5, ids[4])):
        segmentation = {"Segmentation": files.mask(20, seed), "CategoriesPresent": [[1], [20]]}
        members[f"{top}/cls/{id}.mat"] = files.mat(GTcls=segmentation)
        members[f"{top}/inst/{id}.mat"] = files.mat(GTinst=segmentation)
        members[f"{top}/img/{id}.jpg"] = files.jpg(seed)
    files.tar(server.folder / "benchmark.tgz", members, "w:gz")


@pytest.fixture
def devkit_2010(server, files):
    """VOC 2010 with 2 train and 1 val images, and one that no other archive knows."""
    top = "VOCdevkit/VOC2010"
    members = {f"{top}/JPEGImages/2008_{id}.jpg": files.jpg() for id in "abcd"}
    lists = {"train": ["2008_a", "2008_b"], "val": ["2008_c", "2008_d"]}
    for name, listed in lists.items():
        members[f"{top}/ImageSets/Main/{name}.txt"] = files.lines(listed)
    files.tar(server.folder / "VOCtrainval_03-May-2010.tar", members)
