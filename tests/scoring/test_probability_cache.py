import ast
import gzip
import io
from concurrent.futures import ThreadPoolExecutor
from inspect import signature
from pathlib import Path

import numpy as np
import pytest
import torch
from jsonargparse import Namespace

from deeplab_lit.data import SegmentationData
from deeplab_lit.scoring.probability_cache import CachedProbabilities, cache_key


def random_probabilities(*shape):
    return (4 * torch.randn(*shape)).softmax(-3)


def gray(*size):
    """An image of a size."""
    return np.full((*size, 3), 128, np.uint8)


def test_what_is_read_is_what_was_written_rounded_to_16_bits(tmp_path):
    cache = CachedProbabilities(tmp_path / "kept", 5)
    written = random_probabilities(5, 7, 9)
    cache.write("a", gray(7, 9), written)
    read = cache.read("a", gray(7, 9))
    assert read.dtype == torch.float32
    torch.testing.assert_close(read.sum(0), torch.ones(7, 9))
    large = written > 6.2e-5
    relative = (read - written).abs() / written
    assert relative[large].max() < 2**-10  # rounding, and the sum made 1 again
    assert (read - written)[~large].abs().max() < 1.1e-5


def test_nothing_is_lost_that_the_crf_could_tell_apart(tmp_path):
    """The CRF counts anything below 1e-5 as 1e-5."""
    cache = CachedProbabilities(tmp_path, 4)
    written = torch.tensor([1 - 3e-5, 2e-5, 9e-6, 1e-6]).view(4, 1, 1)
    cache.write("a", gray(1, 1), written)
    read = cache.read("a", gray(1, 1)).clamp_min(1e-5).flatten()
    assert read.tolist() == pytest.approx([1, 2e-5, 1e-5, 1e-5], rel=0.005)


def test_ids_with_slashes_or_equal_but_for_capitals_keep_apart(tmp_path):
    cache = CachedProbabilities(tmp_path, 2)
    ids = ["a/b", "a_b", "A/b"]
    for i, id in enumerate(ids):
        cache.write(
            id, gray(1, 1), torch.full((2, 1, 1), 0.5) + torch.tensor([i, -i]).view(2, 1, 1) / 8
        )
    assert len({cache.path(id).name.lower() for id in ids}) == 3
    assert [cache.read(id, gray(1, 1))[0].item() for id in ids] == [0.5, 0.625, 0.75]
    assert [path.parent for path in map(cache.path, ids)] == [tmp_path] * 3


def test_only_new_images_go_through_the_network(tmp_path):
    cache = CachedProbabilities(tmp_path, 3)
    logits = {1: torch.randn(3, 4, 4), 2: torch.randn(3, 4, 4)}
    seen = []

    def network(images):
        seen.extend(images[:, 0, 0, 0].tolist())
        return torch.stack([logits[i] for i in images[:, 0, 0, 0].tolist()])

    images = torch.tensor([1, 2]).view(2, 1, 1, 1).expand(2, 3, 4, 4)
    first = cache.log_probabilities(["one"], images[:1], network)
    both = cache.log_probabilities(["one", "two"], images, network)
    again = cache.log_probabilities(["one", "two"], images, network)
    assert seen == [1, 2]
    assert (cache.reused, cache.replaced) == (3, 0)
    assert torch.equal(both[:1], first)
    assert torch.equal(both, again)
    expected = torch.stack([logits[1], logits[2]]).softmax(1)
    torch.testing.assert_close(again.exp(), expected, rtol=2**-10, atol=1e-7)


def test_what_fails_while_writing_leaves_nothing(tmp_path, monkeypatch):
    cache = CachedProbabilities(tmp_path, 2)

    def fail(file, array):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        cache.write("a", gray(3, 3), random_probabilities(2, 3, 3))
    assert cache.read("a", gray(3, 3)) is None
    assert list(tmp_path.iterdir()) == []


def array(*arrays):
    """A gzipped file of arrays, as the cache has it."""
    content = io.BytesIO()
    for one in arrays:
        np.save(content, one)
    return gzip.compress(content.getvalue())


DAMAGES = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "no gzip": lambda content: b"not gzip",
    "another array": lambda content: array(np.zeros(3)),
    "of another version": lambda content: array(np.zeros((1, 8, 8), np.float16)),
    "another dtype": lambda content: array(fingerprint(content), np.zeros((1, 8, 8), np.float32)),
    "another shape": lambda content: array(fingerprint(content), np.zeros((1, 8, 9), np.float16)),
    "other classes": lambda content: array(fingerprint(content), np.zeros((2, 8, 8), np.float16)),
    "a wrong checksum": lambda content: content[:-8] + bytes(4) + content[-4:],
    "objects": lambda content: array(np.array([{}], object)),
}


def fingerprint(content):
    return np.load(io.BytesIO(gzip.decompress(content)))


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_file_that_is_damaged_or_not_of_this_shape_is_computed_anew(tmp_path, damage):
    cache = CachedProbabilities(tmp_path, 1)
    logits = torch.randn(1, 1, 8, 8)
    first = cache.log_probabilities(["a"], logits, lambda images: logits)
    content = cache.path("a").read_bytes()
    cache.path("a").write_bytes(DAMAGES[damage](content))
    assert torch.equal(cache.log_probabilities(["a"], logits, lambda images: logits), first)
    assert cache.path("a").read_bytes()[10:] == content[10:]  # but for the time in its header
    assert (cache.reused, cache.replaced) == (0, 1)


def test_a_flipped_bit_gives_no_other_probabilities(tmp_path):
    cache = CachedProbabilities(tmp_path, 3)
    cache.write("a", gray(6, 7), random_probabilities(3, 6, 7))
    right, content = cache.read("a", gray(6, 7)), cache.path("a").read_bytes()
    for place in range(len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1 << place % 8
        cache.path("a").write_bytes(damaged)
        read = cache.read("a", gray(6, 7))
        assert read is None or torch.equal(read, right), place


def test_an_image_replaced_under_its_name_is_computed_anew(tmp_path):
    """Of the same size and at the same place; only its pixels are others."""
    cache = CachedProbabilities(tmp_path, 2)
    image, other = torch.zeros(1, 3, 4, 4, dtype=torch.uint8), torch.zeros(1, 3, 4, 4).byte()
    other[0, 2, 3, 3] = 1
    cache.log_probabilities(["a"], image, lambda images: torch.zeros(1, 2, 4, 4))
    logits = torch.tensor([2.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    seen = cache.log_probabilities(["a"], other, lambda images: logits)
    torch.testing.assert_close(seen.exp(), logits.softmax(1), rtol=2**-10, atol=0)
    assert (cache.reused, cache.replaced) == (0, 1)


def test_many_writers_may_share_the_folder(tmp_path):
    cache, probabilities = CachedProbabilities(tmp_path, 5), random_probabilities(5, 40, 40)
    image = gray(40, 40)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: cache.write(f"{i % 2}", image, probabilities), range(40)))
    for id in ("0", "1"):
        torch.testing.assert_close(cache.read(id, image), probabilities, rtol=2**-10, atol=2e-5)


def test_no_header_is_parsed(tmp_path, monkeypatch):
    """Python 3.11 can raise a SystemError where two threads do so at once."""
    cache = CachedProbabilities(tmp_path, 2)
    cache.write("a", gray(3, 3), random_probabilities(2, 3, 3))
    monkeypatch.setattr(ast, "literal_eval", None)
    monkeypatch.setattr(ast, "parse", None)
    assert cache.read("a", gray(3, 3)) is not None


@pytest.fixture
def decided(tmp_path):
    """Of one of two checkpoints, of a data set, with some of its arguments."""
    (tmp_path / "a.ckpt").write_bytes(b"a")
    (tmp_path / "b.ckpt").write_bytes(b"b")

    def decide(name="a", split="val", data="deeplab_lit.data.Folder", **arguments):
        given = Namespace(**{"root": "x", "train_split": "train", **arguments})
        path = str(tmp_path / f"{name}.ckpt")
        return cache_key(path, Namespace(class_path=data, init_args=given), split)

    return decide


def test_another_checkpoint_data_set_or_split_has_other_probabilities(decided):
    shapes = "deeplab_lit.data.Shapes"
    assert decided("b") != decided()
    assert decided(split="train") != decided()
    assert decided(root="y") != decided()
    assert decided(data="deeplab_lit.data.VOC") != decided()
    assert decided(data=shapes, draw_seed=1) != decided(data=shapes, draw_seed=0)


def test_the_same_words_in_another_folder_mean_other_data(decided, tmp_path, monkeypatch):
    here = decided(), decided(root="./x"), decided(root=str(Path("x").absolute()))
    assert here[0] == here[1] == here[2]
    monkeypatch.chdir(tmp_path)
    assert decided() != here[0]


def test_one_data_set_may_be_named_in_several_ways(decided):
    assert decided(data="deeplab_lit.data.folder.Folder") == decided()


def test_no_option_that_all_data_sets_share_makes_probabilities_others(decided):
    """Whatever is added to them: which split is for what is no part of a split's images."""
    shared = set(signature(SegmentationData).parameters)
    assert {"train_split", "val_split", "mask_dir"} <= shared
    assert decided(**dict.fromkeys(shared, "another")) == decided()


def test_an_option_of_a_data_sets_own_counts(decided):
    assert decided(void=0) != decided(void=255)


def test_maps_of_a_sure_network_take_little_space(tmp_path):
    cache = CachedProbabilities(tmp_path, 21)
    sure = (30 * torch.nn.functional.one_hot(torch.zeros(64, 64).long(), 21)).float()
    cache.write("a", gray(64, 64), sure.permute(2, 0, 1).softmax(0))
    assert cache.path("a").stat().st_size < 64 * 64 * 21 * 2 / 50
    with gzip.open(cache.path("a")) as file:
        np.load(file)
        assert np.load(file).dtype == np.float16


@pytest.mark.parametrize(("name", "module"), [("PascalContext", "pascal_context"),
                                              ("PersonPart", "person_part")])  # fmt: skip
def test_caches_begun_before_a_class_moved_are_still_taken(decided, name, module):
    key = decided(data=f"deeplab_lit.data.{name}")
    assert key["data"]["class"] == f"deeplab_lit.data.{module}.{name}"
