"""The CRF alone on a folder of maps, beside their images."""

import re
import shlex

import numpy as np
import pytest
from PIL import Image

from deeplab_lit import refine
from deeplab_lit.crf import DenseCRF
from deeplab_lit.data.class_maps import read_class_maps, write_probabilities
from deeplab_lit.data.image import read_image, read_mask

SIZE = (40, 60)
CRF = ["--crf.iterations=3", "--crf.backend=torch"]
PARAMETERS = {"iterations": 3, "backend": "torch"}


@pytest.fixture
def images(tmp_path):
    """Two photographs, left half dark and right half bright, and a third without maps."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a", "b", "c"):
        pixels = rng.integers(0, 40, (*SIZE, 3)).astype(np.uint8)
        pixels[:, 30:] += 180
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


@pytest.fixture
def maps(tmp_path):
    (tmp_path / "maps").mkdir()
    return tmp_path / "maps"


@pytest.fixture
def run(tmp_path, images, maps):
    """Runs the command; returns the code and the folder of the results."""

    def run(*options, out="out"):
        args = ["--images", str(images), "--maps", str(maps), "--out", str(tmp_path / out)]
        return refine.main([*args, *CRF, "--num_workers=2", *options]), tmp_path / out

    return run


def probabilities(seed, classes=3):
    values = np.random.default_rng(seed).random((classes, *SIZE)).astype(np.float32) + 0.1
    return values / values.sum(0)


def expected(image, values):
    return DenseCRF(**PARAMETERS)(read_image(image), values)


def test_probabilities_of_all_classes_are_refined_as_the_crf_does_it(run, images, maps, capsys):
    for seed, name in enumerate("ab"):
        np.save(maps / f"{name}.npy", probabilities(seed))
    code, out = run("--probabilities")
    assert code == 0
    for seed, name in enumerate("ab"):
        values = expected(images / f"{name}.png", probabilities(seed))
        assert (read_mask(out / f"masks/{name}.png") == values.argmax(0)).all()
        kept = read_class_maps(out / f"probabilities/{name}.npz", 3).maps
        np.testing.assert_allclose(kept, values[values.max((1, 2)) >= 1e-3], atol=2e-3)
    assert "1 image without maps: left out" in capsys.readouterr().out


def test_compact_files_and_a_list_of_classes_give_masks_in_their_colors(run, maps, tmp_path):
    write_probabilities(maps / "a.npz", probabilities(0))
    (tmp_path / "classes.txt").write_text("sky 1 2 3\nroad 4 5 6\ncar 7 8 9\n")
    _, out = run("--classes", str(tmp_path / "classes.txt"))
    with Image.open(out / "masks/a.png") as mask:
        assert mask.mode == "P"
        assert mask.getpalette()[:9] == list(range(1, 10))


@pytest.mark.parametrize("rule", ["threshold:0.3", "power:2"])
def test_activation_maps_get_a_background_by_the_rule_and_only_their_classes(
    run, images, maps, rule
):
    scores = np.random.default_rng(3).random((2, *SIZE)).astype(np.float32)
    np.save(maps / "a.npy", {"keys": np.array([4, 14]), "high_res": scores}, allow_pickle=True)
    _, out = run("--rule", rule, "--classes", "voc", "--probabilities")
    highest = scores.max(0)
    background = np.full(SIZE, 0.3) if rule.startswith("threshold") else (1 - highest) ** 2
    values = np.concatenate([background[None], scores]).astype(np.float32)
    refined = expected(images / "a.png", values / values.sum(0))
    mask = read_mask(out / "masks/a.png")
    assert (mask == np.array([0, 5, 15])[refined.argmax(0)]).all()
    assert read_class_maps(out / "probabilities/a.npz", 21).complete


def test_labels_are_worth_gt_prob_and_void_ones_take_what_their_neighbors_have(run, images, maps):
    labels = np.where(np.arange(60) < 30, 0, 7) * np.ones((40, 1))
    noisy = np.where(np.random.default_rng(0).random(SIZE) < 0.1, 7 - labels, labels)
    noisy[:, 10:14] = 255
    Image.fromarray(noisy.astype(np.uint8)).save(maps / "a.png")
    _, out = run("--gt_prob=0.8", "--crf.bi_rgb_std=20")
    values = np.stack([noisy == 0, noisy == 7]) * 0.6 + 0.2
    values[:, noisy == 255] = 0.5
    refined = DenseCRF(**PARAMETERS, bi_rgb_std=20)(
        read_image(images / "a.png"), values.astype(np.float32)
    )
    mask = read_mask(out / "masks/a.png")
    assert (mask == np.array([0, 7])[refined.argmax(0)]).all()
    assert (mask == labels).mean() > 0.99


def test_what_is_not_certain_after_the_crf_is_void_and_its_share_is_said(run, images, maps, capsys):
    np.save(maps / "a.npy", probabilities(0))
    _, out = run("--certain=0.6")
    highest = expected(images / "a.png", probabilities(0)).max(0)
    mask = read_mask(out / "masks/a.png")
    assert ((mask == 255) == (highest < 0.6)).all()
    shown = capsys.readouterr().out
    assert f"Void        {(highest < 0.6).mean():.2%} of their pixels" in shown
    words = shlex.split(shown.splitlines()[-1])
    assert words[0] == "Next"
    assert words[3:6] == ["deeplab_lit.validate", "--masks", str(out / "masks")]


@pytest.mark.parametrize(
    ("classes", "data"), [([], "VOC"), (["--classes=cityscapes"], "Cityscapes")]
)
def test_the_next_command_scores_on_the_data_set_of_the_classes(run, maps, capsys, classes, data):
    np.save(maps / "a.npy", np.zeros(SIZE, np.uint8))
    run(*classes)
    assert capsys.readouterr().out.rstrip().endswith(f" --data {data} --data.root DIR")


def test_it_goes_on_where_it_was_stopped_and_redoes_what_has_changed(run, maps, capsys):
    for seed, name in enumerate("ab"):
        np.save(maps / f"{name}.npy", probabilities(seed))
    _, out = run()
    before = (out / "masks/a.png").stat().st_mtime_ns
    np.save(maps / "b.npy", probabilities(7))
    capsys.readouterr()
    run()
    assert "1 of 2 images is done already" in capsys.readouterr().out
    assert (out / "masks/a.png").stat().st_mtime_ns == before
    with pytest.raises(SystemExit):
        run("--certain=0.5")
    assert "holds results of other settings (certain" in capsys.readouterr().err


def test_labels_that_are_void_everywhere_stay_void(run, maps):
    Image.fromarray(np.full(SIZE, 255, np.uint8)).save(maps / "a.png")
    Image.fromarray(np.full(SIZE, 5, np.uint8)).save(maps / "b.png")
    _, out = run()
    assert (read_mask(out / "masks/a.png") == 255).all()
    assert (read_mask(out / "masks/b.png") == 5).all()


def test_a_file_that_cannot_be_read_does_not_end_the_others(run, images, maps, capsys):
    for name in "abcdefghijklmnopqr":  # more than are read before the first is refined
        if name not in "abc":
            (images / f"{name}.png").write_bytes((images / "a.png").read_bytes())
        np.save(maps / f"{name}.npy", probabilities(0))
    (maps / "b.npy").write_bytes(b"broken")
    code, out = run("--crf.iterations=0")
    assert code == 1
    assert len(list((out / "masks").glob("*.png"))) == 17
    assert "1 image or their maps could not be read" in capsys.readouterr().err


NAN = probabilities(0)
NAN[0, 0, 0] = np.nan


@pytest.mark.parametrize(
    ("content", "options", "says"),
    [
        (probabilities(0)[:, :-1], [], r"maps of 60×39 .* for an image of 60×40"),
        (np.zeros((30, 60), np.uint8), [], r"labels of 60×30 .* for an image of 60×40"),
        (probabilities(0).transpose(0, 2, 1), [], r"maps of 40×60 .* for an image of 60×40"),
        (10 * probabilities(0) - 5, [], r"expected 0…1.*softmax"),
        (probabilities(0).transpose(1, 2, 0), [], r"\(H,W,C\)"),
        (NAN, [], "NaN"),
        (np.full(SIZE, 30, np.uint8), ["--classes=voc"], "value 30, but --classes has 21 classes"),
        (probabilities(0), ["--classes=voc"], "3 maps for 21 classes"),
        (probabilities(0), ["--rule=threshold:0.2"], "probabilities of all classes"),
        (probabilities(0), ["--rule=certain:0.9"], "after it there is --certain"),
        (probabilities(0), ["--certain=95"], "between 0 and 1, got 95"),
        (probabilities(0), ["--gt_prob=0.3"], "between 0.5 and 1, got 0.3"),
        (probabilities(0), ["--classes=nothing"], "not ADE20K, .* and no such file"),
        (np.zeros(SIZE, np.uint8), ["--rule=threshold:0.2"], "labels, which need no rule"),
        (np.zeros(SIZE, np.uint8), ["--probabilities"], "does not tell how many classes"),
    ],
)
def test_mistakes_are_refused_before_anything_is_written(
    run, maps, tmp_path, capsys, content, options, says
):
    np.save(maps / "a.npy", content)
    with pytest.raises(SystemExit) as stop:
        run(*options)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert re.search(says, error), error
    assert not (tmp_path / "out").exists()


def test_maps_without_an_image_are_named(run, maps, capsys):
    for name in ("a", "x", "y"):
        np.save(maps / f"{name}.npy", probabilities(0))
    with pytest.raises(SystemExit):
        run()
    assert "2 of 3 files there have no image of the same name among --images (x, y)" in (
        capsys.readouterr().err
    )


def test_an_image_has_one_file_of_maps(run, maps, capsys):
    np.save(maps / "a.npy", probabilities(0))
    Image.fromarray(np.zeros(SIZE, np.uint8)).save(maps / "a.png")
    with pytest.raises(SystemExit):
        run()
    assert "are both of" in capsys.readouterr().err


def test_labels_that_are_void_throughout_stay_void_and_are_done_once(run, maps, capsys):
    for name in ("a", "b"):
        Image.fromarray(np.full((40, 60), 255, np.uint8)).save(maps / f"{name}.png")
    code, out = run("--classes", "voc", "--probabilities")
    assert code == 0
    assert (read_mask(out / "masks/a.png") == 255).all()
    kept = read_class_maps(out / "probabilities/a.npz", 21)
    np.testing.assert_allclose(kept.maps, 1 / 21, rtol=1e-3)
    run("--classes", "voc", "--probabilities")
    assert "2 of 2 images are done already" in capsys.readouterr().out
