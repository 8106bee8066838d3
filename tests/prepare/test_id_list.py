import pickle
from pathlib import Path

import numpy as np
import pytest

from deeplab_lit.data.id_lists import read_ids
from deeplab_lit.prepare.__main__ import main
from deeplab_lit.prepare.id_list import share

NAMES = ["2007_1", "2007_2", "2008_3", "2009_6", "2010_7"]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys, write_list):
    """(options) → what the command prints; --of all.txt is a list of NAMES."""
    monkeypatch.chdir(tmp_path)
    write_list(tmp_path / "all.txt", NAMES)

    def run(*options):
        assert main(["id_list", *options]) == 0
        return capsys.readouterr().out

    return run


@pytest.fixture
def refusal(run, capsys):
    def refusal(*options):
        with pytest.raises(SystemExit) as stop:
            run(*options)
        assert stop.value.code == 2
        return capsys.readouterr().err

    return refusal


def names(path):
    return read_ids(path).names


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_the_first_positions_of_an_order_become_a_list_of_text(run, protocol):
    Path("split_0.pkl").write_bytes(pickle.dumps(np.array([3, 0, 4, 2, 1]), protocol))
    options = ["--pickle", "split_0.pkl", "--of", "all.txt", "--first", "2"]
    said = run(*options, "--out", "labeled.txt", "--rest", "unlabeled.txt")
    assert names("labeled.txt") == ["2009_6", "2007_1"]
    assert names("unlabeled.txt") == ["2007_2", "2008_3", "2010_7"]
    assert "labeled.txt: 2 of the 5 images of all.txt, in the order of split_0.pkl" in said
    assert "positions are lines of the list that they were made for" in said


def test_a_draw_is_the_same_for_a_seed_and_smaller_ones_begin_larger_ones(run):
    for name, number, seed in (("a", 2, 0), ("b", 4, 0), ("c", 2, 0), ("d", 4, 1)):
        run("--of", "all.txt", "--first", str(number), "--seed", str(seed), "--out", name)
    a, b, c, d = map(names, "abcd")
    assert a == c == b[:2] == [NAMES[i] for i in np.random.RandomState(0).permutation(5)[:2]]
    assert d != b


@pytest.mark.parametrize(
    ("fraction", "of", "expected"),
    [  # the lists of UniMatch
        *(("1/16", 10_582, 662), ("1/8", 10_582, 1323), ("1/4", 10_582, 2646)),
        *(("1/30", 2975, 100), ("1/16", 2975, 186), ("1/8", 2975, 372), ("1/2", 2975, 1488)),
        *(("0.5", 4, 2), ("1", 4, 4)),
    ],
)
def test_shares_are_rounded_up_as_in_published_lists(fraction, of, expected):
    assert share(fraction, of) == expected


def test_classes_that_no_drawn_image_holds_are_named(run, folder_root, write_mask):
    for name in "01234":
        write_mask(folder_root / f"labels/train/{name}.png", np.zeros((24, 32)))
    data = ["--data", "Folder", "--data.root", str(folder_root)]
    said = run(*data, "--fraction", "1/2", "--out", "labeled.txt", "--rest", "rest.txt")
    assert "3 of the 5 images of Folder train, drawn by seed 0" in said
    assert "2 classes in none of these images (road, car)" in said
    assert sorted(names("labeled.txt") + names("rest.txt")) == list("01234")
    write_mask(folder_root / f"labels/train/{names('labeled.txt')[0]}.png", np.eye(24, 32) + 1)
    said = run(*data, "--fraction", "1/2", "--out", "again.txt")
    assert "Every class is in these images; the rarest, road, in 1 of them" in said


def test_a_pickle_that_calls_something_runs_nothing(refusal):
    class Harm:
        def __reduce__(self):
            return (Path.touch, (Path("harm"),))

    Path("split_0.pkl").write_bytes(pickle.dumps(Harm()))
    said = refusal(
        "--pickle", "split_0.pkl", "--of", "all.txt", "--first", "2", "--out", "labeled.txt"
    )
    assert "split_0.pkl: cannot be read" in said
    assert not Path("harm").exists()
    assert not Path("labeled.txt").exists()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (np.arange(4), "orders 4 images, but all.txt names 5"),
        (np.array([0, 1, 2, 3, 3]), "expected an order of images"),
        (np.arange(5.0), "expected an order of images"),
        ([0, 1, 2], "not of an array"),
    ],
)
def test_what_is_no_order_of_these_images_is_refused(refusal, content, words):
    Path("split_0.pkl").write_bytes(pickle.dumps(content))
    options = ["--of", "all.txt", "--first", "2", "--out", "labeled.txt"]
    assert words in refusal("--pickle", "split_0.pkl", *options)


def test_that_positions_in_cityscapes_mean_a_listing_is_said(run, write_list):
    write_list(Path("city.txt"), [f"{i:04d}" for i in range(2975)])
    Path("split_0.pkl").write_bytes(pickle.dumps(np.arange(2975)))
    said = run("--pickle", "split_0.pkl", "--of", "city.txt", "--first", "100", "--out", "out.txt")
    assert "WARNING: 2,975 positions are those of Cityscapes train" in said
    assert "os.walk" in said


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--first 2", "either --data with its options, or --of"),
        ("--of all.txt", "either --first NUMBER or --fraction"),
        ("--of all.txt --first 2 --fraction 1/2", "either --first NUMBER or --fraction"),
        ("--of all.txt --first 0", "from 1 up to 5"),
        ("--of all.txt --first 5 --rest rest.txt", "from 1 up to 4"),
        ("--of all.txt --fraction 1/0", "expected a share like 1/16"),
        ("--of all.txt --fraction 1e999999999", "expected a share like 1/16"),
        ("--of all.txt --fraction 17/16", "expected a share like 1/16"),
        ("--of all.txt --first 2 --rest labeled.txt", "are one file"),
        ("--of all.txt --first 2 --seed -1", "--seed -1"),
        ("--of all.txt --first 2 --out all.txt", "all.txt exists already"),
        ("--of all.txt --first 2 --pickle a.pkl --seed 1", "leave --seed out"),
        ("--data Shapes --first 2 --pickle a.pkl", "give that list as --of"),
        ("--of all.txt --first 2 --pickle all.txt", "cannot be read as a pickle of an array"),
    ],
)
def test_mistakes_get_a_sentence(refusal, options, words):
    assert words in refusal("--out", "labeled.txt", *options.split())
    assert not Path("labeled.txt").exists()
