import numpy as np
import pytest
from PIL import Image

from deeplab_lit.data import DataError
from deeplab_lit.data.image import read_mask
from deeplab_lit.prepare.label_maps import convert, read_mat, write_list


def test_every_annotation_becomes_a_palette_png_of_its_values(files, tmp_path):
    values = [files.mask(20, seed) for seed in range(40)]
    jobs = [(tmp_path / f"{i}.gray.png", tmp_path / f"out/{i}.png") for i in range(40)]
    for (source, _), mask in zip(jobs, values, strict=True):
        source.write_bytes(files.png(mask))
    convert(jobs, read_mask, "test")
    for (_, target), mask in zip(jobs, values, strict=True):
        with Image.open(target) as image:
            assert image.mode == "P"
            assert image.getpalette()[3 * 15 : 3 * 16] == [192, 128, 128]  # VOC's person
            np.testing.assert_array_equal(np.asarray(image), mask)


def test_a_second_run_converts_only_what_is_missing(files, tmp_path, tree):
    jobs = [(tmp_path / f"{i}.gray.png", tmp_path / f"out/{i}.png") for i in range(3)]
    for source, _ in jobs:
        source.write_bytes(files.png(files.mask(5)))
    convert(jobs[:2], read_mask, "test")
    before = tree(tmp_path / "out")
    convert(jobs, read_mask, "test")
    after = tree(tmp_path / "out")
    assert after.keys() - before.keys() == {"2.png"}
    assert before.items() < after.items()


def test_all_broken_annotations_are_named_and_the_others_are_written(files, tmp_path):
    jobs = [(tmp_path / f"{i}.gray.png", tmp_path / f"out/{i}.png") for i in range(20)]
    for i, (source, _) in enumerate(jobs):
        source.write_bytes(b"" if i < 12 else files.png(files.mask(5)))
    with pytest.raises(DataError) as caught:
        convert(jobs, read_mask, "test")
    lines = str(caught.value).splitlines()
    assert [line.partition(".gray")[0].rpartition("/")[2] for line in lines[:10]] == [
        str(i) for i in range(10)
    ]
    assert lines[10:] == ["… and 2 more"]
    written = sorted(int(path.stem) for path in (tmp_path / "out").iterdir())
    assert written == list(range(12, 20))


def test_a_matlab_file_without_the_matrix_is_named(files, tmp_path):
    path = tmp_path / "a.mat"
    path.write_bytes(files.mat(S=files.mask(9), title="a picture"))
    np.testing.assert_array_equal(read_mat(path, "S"), files.mask(9))
    for key, problem in (("LabelMap", "no matrix LabelMap"), ("title", "not a label map")):
        with pytest.raises(DataError, match=rf"a\.mat: .*{problem}"):
            read_mat(path, key)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"a\.mat: no matrix S can be read"):
        read_mat(path, "S")


def test_a_list_has_a_name_a_line(tmp_path):
    write_list(tmp_path / "lists/train.txt", ["a", "b"])
    assert (tmp_path / "lists/train.txt").read_bytes() == b"a\nb\n"
