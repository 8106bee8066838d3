import numpy as np
import pytest
import torch

from deeplab_lit.data.class_maps import read_class_maps, read_map_file, write_probabilities
from deeplab_lit.data.image import DataError

H, W = 9, 14


@pytest.fixture
def random():
    return np.random.default_rng(0)


@pytest.fixture
def write(tmp_path):
    def write(content):
        np.save(tmp_path / "2007_000032.npy", content)
        return tmp_path / "2007_000032.npy"

    return write


def normalized(maps):
    """Each map divided by its highest value + 1e-5, as IRN does it."""
    return maps / (maps.max((1, 2), keepdims=True) + 1e-5)


def irn(random, **changes):
    """What IRN's make_cam.py writes: classes in a tensor, a small and a large map of each."""
    keys = torch.nonzero(torch.tensor([1.0] + [0.0] * 13 + [1.0, 0.0]))[:, 0]
    cam = normalized(random.random((20, -(-H // 4), -(-W // 4)), np.float32))
    content = {
        "keys": keys,
        "cam": torch.from_numpy(cam)[keys],
        "high_res": normalized(random.random((2, H, W), np.float32)),
    }
    return content | changes


def test_irns_dictionary_gives_its_large_maps_and_classes_after_background(write, random):
    content = irn(random)
    maps = read_class_maps(write(content), 21)
    assert maps.classes.tolist() == [1, 15]  # aeroplane, person
    np.testing.assert_array_equal(maps.maps, content["high_res"])
    assert not maps.complete


def test_irns_small_maps_are_taken_where_there_are_no_large_ones(write, random):
    content = irn(random)
    del content["high_res"]
    np.testing.assert_array_equal(read_class_maps(write(content)).maps, content["cam"].numpy())
    assert content["cam"].shape == (2, 3, 4)


def test_clip_es_dictionary_is_read(write, random):
    maps = normalized(random.random((3, H, W), np.float32)).astype(np.float16)
    read = read_class_maps(write({"keys": np.array([19, 0, 4]), "attn_highres": maps}), 21)
    assert read.classes.tolist() == [20, 1, 5]
    assert read.maps.dtype == np.float32
    np.testing.assert_array_equal(read.maps, maps)


@pytest.mark.parametrize("empty", [np.zeros((0, H, W), np.float32), np.zeros(0, np.float32)])
def test_an_image_that_holds_no_class_has_no_maps(write, empty):
    read = read_class_maps(write({"keys": torch.zeros(0).long(), "high_res": empty}), 21)
    assert len(read.classes) == len(read.maps) == 0


def test_an_array_is_the_probabilities_of_all_classes(write, random):
    probabilities = random.dirichlet(np.ones(4), (H, W)).transpose(2, 0, 1)
    for dtype, tolerance in ((np.float32, 1e-6), (np.float16, 1e-3)):
        read = read_class_maps(write(probabilities.astype(dtype)), 4)
        assert read.complete
        assert read.classes.tolist() == [0, 1, 2, 3]
        np.testing.assert_allclose(read.maps, probabilities, atol=tolerance)
        np.testing.assert_allclose(read.maps.sum(0), 1, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, bool])
def test_whole_numbers_are_labels(write, random, dtype):
    labels = random.integers(0, 2, (H, W)).astype(dtype)
    read = read_map_file(write(labels))
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, labels)
    with pytest.raises(DataError, match=r"labels \(9, 14\), but no class maps"):
        read_class_maps(write(labels))


def first(maps):
    return maps[:1]


def with_nan(maps):
    maps = maps.copy()
    maps[0, 0, 0] = np.nan
    return maps


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"keys": torch.tensor([1, 15])}, None),
        ({"keys": torch.tensor([1, 20])}, r"the classes 1, 20; expected 0…19"),
        ({"keys": torch.tensor([-1, 3])}, r"the classes -1, 3; expected 0…19"),
        ({"keys": torch.tensor([3, 3])}, r"the classes 3, 3; .* each once"),
        ({"keys": torch.tensor([0, 1, 15])}, r"\(2, 9, 14\) of maps for classes \(3,\)"),
        ({"keys": torch.tensor([0.0, 14.0])}, r"classes \(2,\) of float32"),
        ({"high_res": first}, r"\(1, 9, 14\) of maps for classes \(2,\)"),
        ({"high_res": with_nan}, "NaN"),
        ({"high_res": lambda maps: 3 * maps}, r"map values 0\.\d+…\d.*divided by the highest"),
        ({"high_res": lambda maps: maps - 0.5}, r"map values -0\.\d+…"),
        ({"high_res": lambda maps: (200 * maps).astype(np.uint8)}, r"maps of uint8"),
        ({"high_res": lambda maps: maps[:, :0]}, "empty"),
        ({"high_res": lambda maps: maps[0]}, r"\(9, 14\) of maps"),
    ],
)
def test_dictionaries_that_cannot_be_meant_are_refused(write, random, changes, sentence):
    content = irn(random)
    content |= {k: v(content[k]) if callable(v) else v for k, v in changes.items()}
    if sentence is None:
        assert len(read_class_maps(write(content), 21).classes) == 2
        return
    with pytest.raises(DataError, match=rf"2007_000032\.npy: .*{sentence}"):
        read_class_maps(write(content), 21)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"aeroplane": np.eye(3)}, "a dictionary of aeroplane; expected a dictionary of keys"),
        (np.zeros((3, H, W), np.float32), "an array of 3 maps for 21 classes"),
        (np.full((21, H, W), 0.5, np.float32), r"sum of a pixel's probabilities is 10\.5…10\.5"),
        (np.zeros((21, H, W), np.int64), r"an array \(21, 9, 14\) of int64"),
        (np.full((H, W), 256), "label values 256…256"),
        (np.full((H, W), -1), "label values -1…-1"),
        (np.zeros((H, W), np.float32), r"an array \(9, 14\) of float32"),
    ],
)
def test_other_contents_are_refused(write, content, sentence):
    with pytest.raises(DataError, match=sentence):
        read_map_file(write(content), 21)


def network_like(random, classes=21):
    """Softmax of logits as networks have them: one class far above most others."""
    logits = torch.from_numpy(random.normal(0, 3, (classes, H, W)))
    logits[0] += 8
    logits[5:] -= 12
    return logits.softmax(0).float().numpy()


def test_probabilities_come_back_from_their_file_nearly_as_they_were(tmp_path, random):
    probabilities = network_like(random)
    write_probabilities(tmp_path / "made/a.npz", probabilities)
    maps = read_class_maps(tmp_path / "made/a.npz", 21)
    assert maps.complete
    assert 1 < len(maps.classes) < 21
    back = np.zeros_like(probabilities)
    back[maps.classes] = maps.maps
    left_out = np.setdiff1d(range(21), maps.classes)
    assert probabilities[left_out].max() < 1e-3
    np.testing.assert_allclose(back.sum(0), 1, atol=1e-6)
    np.testing.assert_allclose(back, probabilities, atol=2e-3)
    np.testing.assert_array_equal(back.argmax(0), probabilities.argmax(0))


def test_the_most_probable_class_stays_where_float16_cannot_tell_two_apart(tmp_path):
    probabilities = np.zeros((3, 2, 2), np.float32)
    probabilities[0], probabilities[2] = 0.49999, 0.50001
    probabilities[:, 1, 1] = 1 / 3, 1 / 3, 1 / 3
    probabilities[:, 0, 1] = 0, 0, 1
    assert np.float16(0.49999) == np.float16(0.50001)
    write_probabilities(tmp_path / "a.npz", probabilities)
    back = read_class_maps(tmp_path / "a.npz", 3).maps
    assert back.argmax(0).tolist() == probabilities.argmax(0).tolist() == [[2, 2], [2, 0]]


def test_a_file_of_another_network_or_of_something_else_is_refused(tmp_path, random):
    write_probabilities(tmp_path / "a.npz", network_like(random))
    with pytest.raises(DataError, match=r"a\.npz: probabilities of 21 classes, expected 19"):
        read_class_maps(tmp_path / "a.npz", 19)
    np.savez(tmp_path / "a.npz", arr_0=np.eye(3))
    with pytest.raises(DataError, match=r"a\.npz: it holds arr_0; expected"):
        read_class_maps(tmp_path / "a.npz")


@pytest.mark.parametrize("num_classes", [None, 21])
@pytest.mark.parametrize("height", [12, 375])
def test_an_array_with_the_classes_last_is_named_as_such(tmp_path, num_classes, height):
    np.save(tmp_path / "a.npy", np.full((height, 17, 21), 1 / 21, np.float32))
    with pytest.raises(DataError, match=r"a\.npy: .* in the order \(H,W,C\), expected \(C,H,W\)"):
        read_map_file(tmp_path / "a.npy", num_classes)
