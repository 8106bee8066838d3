"""Published weights are fetched once, by name, and only what is whole and right is kept."""

import hashlib
import io
import threading
import zipfile

import pytest
import torch

from deeplab_lit.network.weights import fetch
from deeplab_lit.network.weights.fetch import place_of, weight_file
from deeplab_lit.network.weights.published import NAMED, PUBLISHED, Published
from deeplab_lit.network.weights.read import MissingWeights, WeightsError, sha256_of

VOC12, GTA5 = NAMED["kazuto1011/voc12"], NAMED["adaptsegnet/gta5"]


def weights(size=200_000):
    """The content of a weight file."""
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(float(size))}, buffer)
    return buffer.getvalue()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """torch's folder, which is empty."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch/hub/checkpoints"


@pytest.fixture
def mirror(server, monkeypatch):
    """A server that has the files under their own names."""
    monkeypatch.setenv("DEEPLAB_LIT_MIRROR", f"{server.url}/weights/")
    (server.folder / "weights").mkdir()
    return server.folder / "weights"


@pytest.fixture
def archive(mirror):
    """Writes the authors' .zip of ResNet-101 with some members."""

    def write(*names):
        file = mirror / "deeplab_aspp_resnet101/prototxt_and_model.zip"
        file.parent.mkdir(exist_ok=True)
        with zipfile.ZipFile(file, "w") as content:
            for name in names:
                content.writestr(name, name.encode() * 1000)
        return file

    return write


def test_a_name_is_downloaded_once_to_where_torch_keeps_its_downloads(
    mirror, server, cache, capsys
):
    (mirror / VOC12.file).write_bytes(weights())
    for _ in range(2):
        file = weight_file("kazuto1011/voc12")
        assert file == str(cache / "deeplabv2_resnet101_msc-vocaug-20000.pth")
        assert (cache / VOC12.file).read_bytes() == weights()
    assert [path for path, _ in server.requests] == [f"/weights/{VOC12.file}"]
    said = capsys.readouterr().out
    assert said.count("Downloading kazuto1011/voc12, license: MIT") == 1
    assert f"  from {server.url}/weights/{VOC12.file}\n  to {file}\n" in said
    assert not list(cache.glob("*.part"))
    server.requests.clear()
    (cache / NAMED["advsemiseg/coco"].file).write_bytes(b"put there by hand")
    weight_file("advsemiseg/coco")
    assert not server.requests


def test_a_download_that_was_cut_off_goes_on_and_is_no_file_before(mirror, server, cache):
    (mirror / VOC12.file).write_bytes(weights())
    server.cut = 300_000
    with pytest.raises(WeightsError, match=r"did not finish .* put it at .*DEEPLAB_LIT_M"):
        weight_file("kazuto1011/voc12")
    assert not (cache / VOC12.file).exists()
    server.cut = None
    assert weight_file("kazuto1011/voc12") == str(cache / VOC12.file)
    assert [asked for _, asked in server.requests] == [None, "bytes=300000-"]
    assert (cache / VOC12.file).read_bytes() == weights()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"<!DOCTYPE html><html>sign in</html>", "is a web page"),
        (weights()[:-400_000], "truncated"),
        (b"", "is empty"),
    ],
)
def test_what_is_no_weight_file_is_not_kept(mirror, server, cache, content, words):
    (mirror / VOC12.file).write_bytes(content)
    with pytest.raises(WeightsError, match=rf"{VOC12.file} is not what it .*{words}.*was deleted"):
        weight_file("kazuto1011/voc12")
    assert not [path for path in cache.iterdir() if path.suffix != ".lock"]


def test_a_folder_may_have_the_files(tmp_path, cache, monkeypatch):
    (tmp_path / VOC12.file).write_bytes(weights())
    monkeypatch.setenv("DEEPLAB_LIT_MIRROR", f"file://{tmp_path}")
    assert weight_file("kazuto1011/voc12") == str(cache / VOC12.file)
    assert (cache / VOC12.file).read_bytes() == weights()


def test_the_hash_in_a_name_is_compared(mirror, cache, capsys):
    content = weights()
    (mirror / GTA5.file).write_bytes(content)
    with pytest.raises(WeightsError, match=r"SHA-256 begins with \w{8}, its name says ed35151c"):
        weight_file("adaptsegnet/gta5")
    assert not (cache / GTA5.file).exists()
    digits = hashlib.sha256(content).hexdigest()[:8]
    right = Published(
        file=f"a-{digits}.pth", origin="", init="none", name="a", url=f"http://x/a-{digits}.pth"
    )
    (mirror / right.file).write_bytes(content)
    assert sha256_of(fetch.fetch(right)).startswith(digits)
    assert "NOTE" not in capsys.readouterr().out


def test_what_came_over_http_without_a_hash_says_so(mirror, capsys):
    (mirror / VOC12.file).write_bytes(weights())
    weight_file("kazuto1011/voc12")
    said = capsys.readouterr().out
    assert "has no published hash and came over http" in said
    assert hashlib.sha256(weights()).hexdigest() in said


def test_what_cannot_be_had_is_a_sentence_with_the_ways_around(mirror, server, cache):
    words = rf"/weights/{VOC12.file}: .*404.* put it at {cache / VOC12.file}; or name another"
    with pytest.raises(WeightsError, match=words):
        weight_file("kazuto1011/voc12")
    server.shutdown()
    server.server_close()
    with pytest.raises(WeightsError, match=r"did not finish \(.*refused"):
        weight_file("kazuto1011/voc12")


def test_of_a_zip_the_weights_are_kept_and_come_at_once(archive, server, cache, capsys):
    names = ("train_iter_20000.caffemodel", "init.caffemodel")
    archive("train.prototxt", *(f"some folder/{name}" for name in names))
    for name, file in zip(("resnet101_voc12", "resnet101_coco"), names, strict=True):
        place = cache / "deeplab_aspp_resnet101" / file
        assert weight_file(f"deeplab/{name}") == str(place)
        assert place.read_bytes() == f"some folder/{file}".encode() * 1000
    assert len(server.requests) == 1
    assert {path.name for path in place.parent.iterdir()} == set(names)
    content = f"some folder/{names[0]}".encode() * 1000
    assert hashlib.sha256(content).hexdigest() in capsys.readouterr().out


def test_a_zip_without_the_file_says_what_it_holds(archive, cache):
    archive("test.prototxt", "other.caffemodel")
    words = r"holds no train_iter_20000\.caffemodel, but other\.caffemodel, test\.prototxt"
    with pytest.raises(WeightsError, match=words):
        weight_file("deeplab/resnet101_voc12")
    archive("other.caffemodel").write_bytes(b"PK no zip")
    with pytest.raises(WeightsError, match=r"no \.zip, or a damaged one"):
        weight_file("deeplab/resnet101_voc12")


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_with_damaged_content_is_not_kept(archive, cache, method):
    file = archive()
    with zipfile.ZipFile(file, "w", method) as content:
        content.writestr("train_iter_20000.caffemodel", bytes(range(256)) * 400)
    damaged = bytearray(file.read_bytes())
    damaged[80:300:3] = bytes(74)
    file.write_bytes(damaged)
    with pytest.raises(WeightsError, match=r"is not what it .*damaged one .*was deleted"):
        weight_file("deeplab/resnet101_voc12")
    by_hand = cache / "deeplab_aspp_resnet101" / file.name
    assert not [path for path in by_hand.parent.iterdir() if path.suffix != ".lock"]
    by_hand.write_bytes(damaged)
    with pytest.raises(WeightsError, match=rf"^{by_hand}: .*damaged one .*Delete it"):
        weight_file("deeplab/resnet101_voc12")


def test_a_mirror_is_an_address(monkeypatch):
    monkeypatch.setenv("DEEPLAB_LIT_MIRROR", "/mnt/weights")
    with pytest.raises(WeightsError, match=r"MIRROR is /mnt/weights: expected .*file:///mnt"):
        weight_file("kazuto1011/voc12")


def test_a_zip_that_was_put_there_by_hand_is_used_and_stays(archive, server, cache):
    file = archive("train2_iter_20000.caffemodel")
    by_hand = cache / "deeplab_aspp_resnet101" / file.name
    by_hand.parent.mkdir(parents=True)
    by_hand.write_bytes(file.read_bytes())
    assert weight_file("deeplab/resnet101_voc12_trainval").endswith("train2_iter_20000.caffemodel")
    assert not server.requests
    assert by_hand.is_file()


def test_of_several_at_once_one_downloads_and_the_others_wait(mirror, server, monkeypatch):
    (mirror / VOC12.file).write_bytes(weights())
    begun, download = threading.Barrier(5), fetch.download

    def slow(*args, **options):
        begun.wait(10)  # until all others are on their way
        return download(*args, **options)

    monkeypatch.setattr(fetch, "download", slow)
    files = []

    def ask(first):
        if not first:
            begun.wait(10)
        files.append(weight_file("kazuto1011/voc12"))

    threads = [threading.Thread(target=ask, args=(i == 0,)) for i in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(files) == 5
    assert len(set(files)) == 1
    assert len(server.requests) == 1


def test_a_file_here_comes_before_a_name_and_that_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kazuto1011/voc12").mkdir(parents=True)
    assert weight_file("kazuto1011/voc12") == "./kazuto1011/voc12"
    assert "kazuto1011/voc12 is here, and is taken" in capsys.readouterr().out


def test_a_name_that_is_nearly_right_gets_the_right_ones(tmp_path):
    words = r"no published weights .*did you mean kazuto1011/voc12\? .*convert --list"
    with pytest.raises(MissingWeights, match=words):
        weight_file("kazuto1011/voc13")
    with pytest.raises(MissingWeights, match="of that name; python -m"):
        weight_file("kazuto1011/cityscapes_of_others")
    for path in ("runs/best", "weights/voc.ckpt", str(tmp_path / "none.pth"), "kazuto1011/a.pth"):
        assert weight_file(path) == path  # whoever reads it says what is there


def test_every_name_has_an_address_and_no_two_files_one_place():
    assert len({place_of(file) for file in NAMED.values()}) == len(NAMED)
    for file in PUBLISHED:
        assert bool(file.name) == bool(file.url)
        assert file.is_zipped or file.url.endswith(file.file if file.url else "")
