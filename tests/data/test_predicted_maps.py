import numpy as np
import pytest
from PIL import Image

from deeplab_lit.data.class_maps import ClassMaps, write_probabilities
from deeplab_lit.data.image import DataError
from deeplab_lit.data.map_rule import MapRule
from deeplab_lit.data.predicted_maps import (
    PredictedMaps,
    read_labels,
    read_prediction,
    soft_labels,
)
from deeplab_lit.data.split import INVALID

LABELS = np.array([[0, 0, 3, 255], [5, 3, 3, 255]], np.uint8)


def test_labels_are_softened_as_by_hand():
    soft = soft_labels(LABELS, 0.7)
    assert soft.classes.tolist() == [0, 3, 5]
    expected = [
        [[0.7, 0.7, 0.15, 1 / 3], [0.15, 0.15, 0.15, 1 / 3]],
        [[0.15, 0.15, 0.7, 1 / 3], [0.15, 0.7, 0.7, 1 / 3]],
        [[0.15, 0.15, 0.15, 1 / 3], [0.7, 0.15, 0.15, 1 / 3]],
    ]
    np.testing.assert_allclose(soft.maps, expected, rtol=1e-6)


def test_labels_are_softened_as_by_pydensecrf():
    utils = pytest.importorskip("pydensecrf.utils", reason="pydensecrf is not installed")
    numbered = np.select([LABELS == 0, LABELS == 3, LABELS == 5], [1, 2, 3], 0)  # 0: unsure
    energy = utils.unary_from_labels(numbered, 3, 0.7, zero_unsure=True)
    np.testing.assert_allclose(
        soft_labels(LABELS, 0.7).maps.reshape(3, -1), np.exp(-energy), rtol=1e-5
    )


def test_one_class_alone_is_certain():
    assert (soft_labels(np.array([[4, 4]], np.uint8), 0.7).maps == 1).all()


def maps_of(tmp_path, values, **kwargs):
    Image.fromarray(np.asarray(values, np.uint8)).save(tmp_path / "a.png")
    return PredictedMaps({"a": tmp_path / "a.png"}, 6, **kwargs)


def test_labels_are_read_by_a_table_and_refused_where_it_has_none(tmp_path):
    table = np.full(256, INVALID, np.uint8)
    table[[7, 8, 0]] = 0, 1, 255
    maps = maps_of(tmp_path, [[7, 8, 0]], table=table)
    assert maps.read("a", (1, 3)).tolist() == [[0, 1, 255]]
    with pytest.raises(DataError, match=r"a\.png: the value 9, which is neither one of the 6"):
        maps_of(tmp_path, [[7, 9, 0]], table=table).read("a", (1, 3))


def test_indices_that_are_no_class_are_refused_with_the_option_for_other_values(tmp_path):
    maps = maps_of(tmp_path, LABELS)
    assert (maps.read("a", (2, 4)) == LABELS).all()
    with pytest.raises(DataError, match=r"the value 6, 33, .* need --mask_values labels"):
        maps_of(tmp_path, [[6, 33, 1]]).read("a", (1, 3))


def test_labels_of_another_size_are_refused_with_both(tmp_path):
    with pytest.raises(DataError, match=r"labels of 4×2 \(width × height\) for an image of 5×2"):
        maps_of(tmp_path, LABELS).read("a", (2, 5))


def test_an_image_without_a_file_is_void_and_may_be_any_class(tmp_path):
    maps = PredictedMaps({}, 6)
    found = maps.read("a", (2, 3))
    assert (maps.labels(found, (2, 3)) == 255).all()
    np.testing.assert_allclose(maps.probabilities(found, (2, 3), 0.7), 1 / 6)


def test_probabilities_of_labels_are_those_of_the_classes_in_the_image(tmp_path):
    maps = maps_of(tmp_path, LABELS)
    values = maps.probabilities(maps.read("a", (2, 4)), (2, 4), 0.7)
    assert values.shape == (6, 2, 4)
    assert (values[[1, 2, 4]] == 0).all()
    np.testing.assert_allclose(values[[0, 3, 5]], soft_labels(LABELS, 0.7).maps, rtol=1e-6)


def test_class_maps_need_their_rule(tmp_path):
    scores = np.array([[[0.1, 0.9]], [[0.05, 0.4]]], np.float32)
    np.save(tmp_path / "a.npy", {"keys": np.array([1, 3]), "high_res": scores}, allow_pickle=True)
    files = {"a": tmp_path / "a.npy"}
    with pytest.raises(DataError, match=r"a\.npy: these maps have no background and need a rule"):
        PredictedMaps(files, 6).read("a", (1, 2))
    maps = PredictedMaps(files, 6, rule=MapRule.parse("threshold:0.2"))
    found = maps.read("a", (1, 2))
    assert isinstance(found, ClassMaps)
    assert maps.labels(found, (1, 2)).tolist() == [[0, 2]]
    values = maps.probabilities(found, (1, 2), 0.7)
    np.testing.assert_allclose(values[[0, 2, 4], 0, 1], np.array([0.2, 0.9, 0.4]) / 1.5, rtol=1e-6)


def test_class_maps_may_be_smaller_but_not_of_another_image(tmp_path):
    scores = np.random.default_rng(0).random((1, 94, 125)).astype(np.float32)
    path = tmp_path / "a.npy"
    np.save(path, {"keys": np.array([1]), "cam": scores}, allow_pickle=True)
    assert isinstance(read_prediction(path, (375, 500)), ClassMaps)
    for other in ((500, 375), (94, 130)):
        with pytest.raises(DataError, match=r"a\.npy: maps of 125×94 .* of another image"):
            read_prediction(path, other)


def test_labels_are_read_from_any_file_that_holds_them(tmp_path, write_mask):
    random, size = np.random.default_rng(0), (12, 17)
    scores = ClassMaps(np.array([4, 8]), random.random((2, *size), np.float32), complete=False)
    maps = random.dirichlet(np.ones(3), size).transpose(2, 0, 1).astype(np.float32)
    probabilities = ClassMaps(np.array([0, 2, 5]), maps, complete=True)
    labels = np.array([[0, 1], [255, 20]], np.uint8)
    write_mask(tmp_path / "a.png", labels)
    np.save(tmp_path / "a.npy", labels.astype(np.int64))
    for name in ("a.png", "a.npy"):
        np.testing.assert_array_equal(read_labels(tmp_path / name, (2, 2), 21), labels)
    with pytest.raises(DataError, match=r"a\.npy holds labels, which need no rule"):
        read_labels(tmp_path / "a.npy", (2, 2), 21, MapRule.parse("certain:0.5"))
    np.save(tmp_path / "b.npy", {"keys": scores.classes - 1, "high_res": scores.maps})
    rule = MapRule.parse("power:1")
    read = read_labels(tmp_path / "b.npy", size, 21, rule)
    np.testing.assert_array_equal(read, rule.labels(scores, size))
    with pytest.raises(DataError, match=r"b\.npy: .* need a rule"):
        read_labels(tmp_path / "b.npy", size, 21)
    whole = MapRule().probabilities(probabilities, 21, size)
    write_probabilities(tmp_path / "c.npz", whole)
    np.testing.assert_array_equal(read_labels(tmp_path / "c.npz", size, 21), whole.argmax(0))
