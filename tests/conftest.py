"""What all tests share: no W&B, no network, and a training that takes a second."""

import copy
import functools
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

os.environ["WANDB_MODE"] = "disabled"
# before torch begins: on tiny networks more threads do nothing but wait for each other
os.environ.setdefault("OMP_NUM_THREADS", "1")

# under nohup, or behind a shell's &, it is ignored: by this process and by those that it starts
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import numpy as np
import pytest
import torch
from PIL import Image

DRAW = {
    name: getattr(torch.nn.init, name)
    for name in ("kaiming_normal_", "kaiming_uniform_", "normal_")
}
TINY = {
    "--data": "Shapes",
    "--data.train_size": "8",
    "--data.val_size": "3",
    "--loader.batch_size": "2",
    "--loader.crop_size": "65",
    "--loader.scales": "[1.0]",
    "--loader.num_workers": "0",
    "--model.backbone": "resnet10_quarter",
    "--model.weights": "none",
    "--model.norm": "batch",
    "--model.scales": "[1.0]",
    "--model.atrous_rates": "[2,4]",
    "--model.lr": "0.01",
    "--model.collapse_share": "1",  # a few steps find no class but background
    "--trainer.accelerator": "cpu",
    "--trainer.max_steps": "4",
    "--trainer.val_check_interval": "2",
    "--trainer.check_val_every_n_epoch": "null",
    "--trainer.enable_progress_bar": "false",
    "--trainer.num_sanity_val_steps": "0",
}


# the files that take longest: begun first, so that no worker is left alone with one at the end
LONGEST = ("test_notebooks.py", "test_export.py", "test_resumption.py", "test_fit.py")


def pytest_collection_modifyitems(items):
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


@pytest.fixture(scope="session")
def tiny_args():
    """Builds a `fit` command line: tiny_args(runs_dir, **{"--option": "value" or None to drop})."""

    def build(runs_dir, **changes):
        options = TINY | {"--runs_dir": str(runs_dir)} | changes
        return [f"{key}={value}" for key, value in options.items() if value is not None]

    return build


@pytest.fixture(scope="session")
def trained(tmp_path_factory, tiny_args):
    """A checkpoint that `fit` wrote, in its run folder."""
    from deeplab_lit import fit

    runs = tmp_path_factory.mktemp("trained") / "runs"
    with pytest.MonkeyPatch.context() as patch:
        for name, draw in DRAW.items():  # also where `undrawn` is at work
            patch.setattr(torch.nn.init, name, draw)
        fit.main(tiny_args(runs, **{"--run": "one"}))
    return runs / "shapes/one/checkpoints/best.ckpt"


@pytest.fixture(scope="session")
def build_fit():
    """Builds what a `fit` command line describes, with nothing run or written."""
    from contextlib import ExitStack

    from deeplab_lit import fit
    from deeplab_lit.training.module import DeepLabModule

    def build(args):
        with ExitStack() as held:
            return fit.build(args, DeepLabModule, held)[0]

    return build


@pytest.fixture(scope="session", autouse=True)
def _nothing_drawn_on_meta():
    """Tensors without values get none, which takes PyTorch long."""

    def drawn(draw):
        return lambda tensor, *args, **kw: tensor if tensor.is_meta else draw(tensor, *args, **kw)

    with pytest.MonkeyPatch.context() as patch:
        for name, draw in DRAW.items():
            patch.setattr(torch.nn.init, name, drawn(draw))
        yield


@pytest.fixture(scope="module")
def undrawn():
    """For big networks: no weights are drawn that files replace anyway, and no charts."""
    with pytest.MonkeyPatch.context() as patch:
        for name in DRAW:
            patch.setattr(torch.nn.init, name, lambda tensor, *args, **kw: tensor.detach().zero_())
        patch.setattr("deeplab_lit.scoring.galleries.ScoreCharts.finish", lambda *args: {})
        yield


@pytest.fixture(scope="session", autouse=True)
def _drafts():
    """Charts are drawn coarsely and not laid out; tests of their looks ask for `full_charts`.

    So are the pictures of a validation, smaller; and the curves on the page of a run are left out.
    """
    from matplotlib.figure import Figure

    from deeplab_lit.pictures import charts
    from deeplab_lit.pictures.masks import comparison

    save, galleries = charts._save, sys.modules.get("deeplab_lit.scoring.galleries")

    def draft(figure, path):
        figure.set_layout_engine("none")
        save(figure, path)

    page = sys.modules.get("deeplab_lit.cli.run_report")
    with pytest.MonkeyPatch.context() as patch:
        if page:
            patch.setattr(page, "curves_plot", lambda curves, chosen: Figure())
        full = {"_save": save, "DPI": charts.DPI}
        patch.setattr(charts, "_save", draft)
        patch.setattr(charts, "DPI", 30)
        if galleries:  # imported by a test
            patch.setattr(galleries, "comparison", functools.partial(comparison, width=48))
        yield full


def _copies(function):
    """The function, called once for the same arguments; what it has given is copied."""
    once = functools.lru_cache(512)(function)
    return lambda *args, **options: copy.deepcopy(once(*args, **options))


@pytest.fixture(scope="session", autouse=True)
def _made_once():
    """Many tests want the same images of Shapes, and parsers with all of the trainer's options."""
    from deeplab_lit.data import shapes

    commands = [sys.modules.get(f"deeplab_lit.{name}") for name in ("fit", "validate")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shapes, "draw_sample", _copies(shapes.draw_sample))
        for command in filter(None, commands):  # imported by a test
            patch.setattr(command, "build_parser", _copies(command.build_parser))
        yield


@pytest.fixture
def full_charts(_drafts, monkeypatch):
    """Draws charts as they are for users."""
    from deeplab_lit.pictures import charts

    for name, value in _drafts.items():
        monkeypatch.setattr(charts, name, value)


@pytest.fixture(autouse=True)
def _same_random_numbers():
    torch.manual_seed(0)


REAL = Path(__file__).parents[1].parent / "shared/data"
SIZE = (24, 32)  # of the images written here, height × width
TRAIN, VAL, SBD = ("2007_1", "2007_2", "2008_3"), ("2007_4", "2008_5"), ("2009_6", "2010_7")
LABEL_IDS = [*range(34), 255]  # every value of an official Cityscapes labelIds file


def _random(high, shape, seed):
    return np.random.default_rng(seed).integers(0, high, shape).astype(np.uint8)


def _write_image(path, seed=0, size=SIZE):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = _random(256, (*size, 3), seed)
    Image.fromarray(pixels).save(path)
    return pixels


def _write_mask(path, values=None, palette=None, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    values = _random(2, SIZE, seed) if values is None else np.asarray(values, np.uint8)
    image = Image.fromarray(values)
    if palette is not None:
        image.putpalette([channel for color in palette for channel in color])
    image.save(path)
    return values


def _write_list(path, ids):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{id}\n" for id in ids))


@pytest.fixture
def write_image():
    """(path, seed, size) → pixels: random colors in a new file."""
    return _write_image


@pytest.fixture
def write_mask():
    """(path, values, palette, seed) → values: a mask file, gray or with a palette."""
    return _write_mask


@pytest.fixture
def write_list():
    """(path, ids): a list file, one id a line."""
    return _write_list


@pytest.fixture
def voc_root(tmp_path):
    """VOCdevkit/VOC2012 with 3 train and 2 val images, and 2 images without VOC masks."""
    root = tmp_path / "VOCdevkit/VOC2012"
    from deeplab_lit.data.classes import voc_color

    palette = [voc_color(i) for i in range(256)]
    for seed, id in enumerate(TRAIN + VAL + SBD):
        _write_image(root / f"JPEGImages/{id}.jpg", seed)
    for seed, id in enumerate(TRAIN + VAL):
        values = _random(21, SIZE, seed)
        values[0] = 255
        _write_mask(root / f"SegmentationClass/{id}.png", values, palette)
    for name, ids in (("train", TRAIN), ("val", VAL), ("trainval", TRAIN + VAL)):
        _write_list(root / f"ImageSets/Segmentation/{name}.txt", ids)
    return root


@pytest.fixture
def voc2010_root(tmp_path):
    """VOCdevkit/VOC2010 with masks of whole scenes and of parts, in 2 train and 1 val images."""
    root = tmp_path / "VOCdevkit/VOC2010"
    for seed, id in enumerate((*TRAIN[:2], VAL[0])):
        _write_image(root / f"JPEGImages/{id}.jpg", seed)
    for masks, lists, classes in (
        ("SegmentationClassContext", "SegmentationContext", 60),
        ("SegmentationPersonPart", "SegmentationPersonPart", 7),
    ):
        for seed, id in enumerate((*TRAIN[:2], VAL[0])):
            values = _random(classes, SIZE, seed)
            values[0], values[1] = 255, classes - 1
            _write_mask(root / masks / f"{id}.png", values)
        _write_list(root / f"ImageSets/{lists}/train.txt", TRAIN[:2])
        _write_list(root / f"ImageSets/{lists}/val.txt", VAL[:1])
    return root


@pytest.fixture
def sbd_root(tmp_path):
    """SBD's release: of a VOC train image, a VOC val image, and the 2 images of its own."""
    from scipy.io import savemat

    root = tmp_path / "benchmark_RELEASE/dataset"
    (root / "cls").mkdir(parents=True)
    for seed, id in enumerate((TRAIN[0], VAL[0], *SBD)):
        _write_image(root / f"img/{id}.jpg", seed)
        present = np.array([[1], [20]], np.uint8)
        boundaries = np.empty((20, 1), object)
        boundaries[:] = [[np.zeros(SIZE, bool)] for _ in range(20)]
        segmentation = np.full(SIZE, seed, np.uint8)
        struct = {
            "Boundaries": boundaries,
            "Segmentation": segmentation,
            "CategoriesPresent": present,
        }
        savemat(root / f"cls/{id}.mat", {"GTcls": struct}, do_compression=True)
    return root


@pytest.fixture
def city_root(tmp_path):
    """Cityscapes with 3 train frames of two cities and 1 val frame; every label id occurs."""
    root = tmp_path / "cityscapes"
    frames = {
        "train": ["zurich_000000_000019", "aachen_000001_000019", "aachen_000000_000019"],
        "val": ["frankfurt_000000_000294"],
    }
    values = np.resize(LABEL_IDS, SIZE)
    for split, ids in frames.items():
        for seed, id in enumerate(ids):
            folder = f"{split}/{id.split('_')[0]}"
            _write_image(root / f"leftImg8bit/{folder}/{id}_leftImg8bit.png", seed)
            _write_mask(root / f"gtFine/{folder}/{id}_gtFine_labelIds.png", values)
            _write_mask(root / f"gtFine/{folder}/{id}_gtFine_instanceIds.png", values)
    return root


@pytest.fixture
def folder_root(tmp_path):
    """A folder of 5 train and 3 val images with gray masks of the classes sky, road and car."""
    root = tmp_path / "mine"
    for split, number in (("train", 5), ("val", 3)):
        for i in range(number):
            _write_image(root / f"images/{split}/{i}.png", i)
            _write_mask(root / f"labels/{split}/{i}.png", _random(3, SIZE, i))
    (root / "classes.txt").write_text("sky\nroad\ncar\n")
    return root


@pytest.fixture
def real():
    """Folder name → folder of the real data set; skips the test where it is absent."""

    def find(name):
        if not (REAL / name).is_dir():
            pytest.skip(f"the real data is not here: {name}")
        return str(REAL / name)

    return find


@pytest.fixture(scope="session")
def make_data():
    """Sixteen drawn images to train on, in batches of two, and five to validate on."""
    from deeplab_lit.data import Shapes
    from deeplab_lit.loading import DataModule

    def make(train_size=16, val_size=5, *, draw_seed=0, **loader):
        loader = {"batch_size": 2, "crop_size": 65, "num_workers": 0} | loader
        return DataModule(Shapes(train_size, val_size, draw_seed), **loader)

    return make


@pytest.fixture(scope="session")
def make_module():
    """The smallest network; always with the same weights."""
    from deeplab_lit.data import Shapes
    from deeplab_lit.training.module import DeepLabModule

    def make(classes=Shapes.classes, **kwargs):
        small = {"backbone": "resnet10_quarter", "weights": "none", "norm": "batch", "lr": 1e-3}
        small["collapse_share"] = 1.0  # a few steps find no class but background
        torch.manual_seed(0)
        return DeepLabModule(
            classes, **{**small, "scales": (1.0,), "atrous_rates": (2, 4), **kwargs}
        )

    return make


@pytest.fixture
def make_trainer(tmp_path):
    """A quiet trainer on one CPU, seeded, that writes below tmp_path."""
    from lightning.pytorch import Trainer, seed_everything

    def make(**kwargs):
        seed_everything(0, verbose=False)
        quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
        quiet |= {"enable_checkpointing": False, "num_sanity_val_steps": 0}
        return Trainer(
            **{
                "accelerator": "cpu",
                "devices": 1,
                "max_steps": 4,
                "default_root_dir": tmp_path,
                "log_every_n_steps": 1,
                **quiet,
                **kwargs,
            }
        )

    return make


def _frame(rng):
    """A label map and its instances: blobs of all kinds, groups (below 1000) among them."""
    labels = np.kron(rng.integers(0, 34, (6, 8)), np.ones((20, 20), np.int64))
    instances = labels.copy()
    for number in range(40):
        y, x = rng.integers(0, 110), rng.integers(0, 150)
        label = rng.integers(24, 34)
        place = np.s_[y : y + rng.integers(1, 30), x : x + rng.integers(1, 30)]
        labels[place] = label
        instances[place] = label if rng.random() < 0.2 else 1000 * label + number
    return labels, instances


@pytest.fixture
def city(tmp_path):
    """Cityscapes of three drawn val frames."""
    from deeplab_lit.data import Cityscapes

    rng = np.random.default_rng(0)
    for i in range(3):
        labels, instances = _frame(rng)
        name = f"val/bonn/bonn_00000{i}_000019"
        files = {
            f"leftImg8bit/{name}_leftImg8bit.png": rng.integers(256, size=(120, 160, 3)).astype(
                np.uint8
            ),
            f"gtFine/{name}_gtFine_labelIds.png": labels.astype(np.uint8),
            f"gtFine/{name}_gtFine_instanceIds.png": instances.astype(np.uint16),
        }
        for file, values in files.items():
            (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values).save(tmp_path / file)
    return Cityscapes(str(tmp_path))


class Server(ThreadingHTTPServer):
    """Serves the files of a folder, with or without ranges, whole or cut off.

    Attributes:
        requests: (path, Range header) of each request so far.
        ranges: whether parts of a file can be asked for.
        cut: bytes after which it hangs up, or None.
        wait: an event to wait for before it hangs up.
        length: what it says as Content-Length instead of the truth; "" for nothing.
        places: path → where it sends those who ask for it.
        version: what it says as ETag, or None.
    """

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder, self.requests, self.ranges, self.cut = folder, [], True, None
        self.length, self.places, self.version = None, {}, None
        self.wait = Event()
        self.wait.set()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, *args):
        """Some clients are to hang up."""


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers["Range"]
        server.requests.append((self.path, wanted))
        if self.path in server.places:
            self.send_response(302)
            self.send_header("Location", server.places[self.path])
            self.end_headers()
            return
        file = server.folder / self.path.lstrip("/")
        if not file.is_file():
            self.send_error(404)
            return
        content = file.read_bytes()
        first = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
        if first and first >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        self.send_response(206 if first else 200)
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(content) - 1}/{len(content)}")
        if server.version:
            self.send_header("ETag", server.version)
        length = str(len(content) - first) if server.length is None else server.length
        if length:
            self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(content[first:][: server.cut])
        server.wait.wait(60)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path):
    """A running server of the folder tmp_path/official."""
    folder = tmp_path / "official"
    folder.mkdir()
    running = Server(folder)
    thread = Thread(target=running.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()
