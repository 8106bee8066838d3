"""Predictions in files are scored as slow and as official scorers score them."""

import json

import numpy as np
import pytest
from PIL import Image

from deeplab_lit import validate
from deeplab_lit.crf import DenseCRF
from deeplab_lit.data import Cityscapes
from deeplab_lit.data.cityscapes import LABEL_IDS
from deeplab_lit.data.image import read_image, read_mask
from deeplab_lit.data.predicted_maps import soft_labels

NAMES = ["sky", "road", "car"]
QUIET = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]
QUIET += ["--loader.num_workers=0", "--trainer.logger=false"]


@pytest.fixture
def masks(folder_root, tmp_path):
    """A prediction for each of three images: right on most pixels, void in two rows."""
    rng = np.random.default_rng(1)
    folder = tmp_path / "masks"
    folder.mkdir()
    for i in range(3):
        truth = read_mask(folder_root / f"labels/val/{i}.png").copy()
        guess = np.where(rng.random(truth.shape) < 0.7, truth, rng.integers(0, 3, truth.shape))
        guess[2 * i : 2 * i + 2] = 255
        Image.fromarray(guess.astype(np.uint8)).save(folder / f"{i}.png")
        truth[:, :3] = 255
        Image.fromarray(truth).save(folder_root / f"labels/val/{i}.png")
    return folder


@pytest.fixture
def score(folder_root, tmp_path):
    """Runs validate on a folder of masks of the data `Folder`."""

    def score(masks, *options):
        place = ["--data=Folder", f"--data.root={folder_root}", f"--runs_dir={tmp_path / 'runs'}"]
        return validate.main([f"--masks={masks}", *place, *QUIET, *options])

    return score


def pixels(folder_root, masks):
    """True and predicted class of every pixel that is not void in the truth."""
    for i in range(3):
        truth = read_mask(folder_root / f"labels/val/{i}.png").ravel().tolist()
        predicted = read_mask(masks / f"{i}.png").ravel().tolist()
        yield from ((t, p) for t, p in zip(truth, predicted, strict=True) if t != 255)


def slow(pairs):
    """IoU of each class, one pixel after the other."""
    pairs = list(pairs)
    hits = [sum(t == p == c for t, p in pairs) for c in range(3)]
    union = [sum(c in (t, p) for t, p in pairs) for c in range(3)]
    return dict(zip(NAMES, (h / u for h, u in zip(hits, union, strict=True)), strict=True))


READINGS = {
    "wrong": lambda pairs: pairs,
    "background": lambda pairs: [(t, 0 if p == 255 else p) for t, p in pairs],
    "skip": lambda pairs: [(t, p) for t, p in pairs if p != 255],
}


@pytest.mark.parametrize("void_as", READINGS)
def test_masks_are_scored_as_by_a_slow_scorer_and_void_as_it_is_said(
    masks, score, folder_root, capsys, void_as
):
    names = "background\nroad\ncar\n" if void_as == "background" else "sky\nroad\ncar\n"
    (folder_root / "classes.txt").write_text(names)
    done = score(masks, f"--void_as={void_as}", "--eval.trimap=classes")
    pairs = list(pixels(folder_root, masks))
    final = json.loads((done.folder / "results.json").read_text())["final"]
    expected = slow(READINGS[void_as](pairs))
    assert list(final["iou"].values()) == pytest.approx(list(expected.values()), abs=1e-12)
    assert final["miou"] == pytest.approx(np.mean(list(expected.values())))
    void = sum(p == 255 for _, p in pairs)
    found = {"as": void_as, "pixels": void, "share": void / len(pairs)}
    assert final["void_predicted"] == found
    assert f"{void / len(pairs):.2%} of the pixels scored are void" in capsys.readouterr().out
    with np.load(done.folder / "images.npz") as images:  # of each image, and of all the same
        hits, true, predicted = images["counts"].sum(0)
    assert (hits / (true + predicted - hits)).tolist() == list(final["iou"].values())
    assert final["trimap"]["miou"][-1] == pytest.approx(final["miou"])  # the widest band is all
    files = {"worst_best.png", "confusion.png", "predictions.png", "images.csv", "config.yaml"}
    assert files <= {path.name for path in done.folder.iterdir()}
    assert done.folder.name.endswith("-validate")


def test_what_was_scored_is_written_and_files_of_other_images_are_counted(masks, score, capsys):
    for name in ("a", "b"):
        (masks / f"{name}.png").write_bytes((masks / "0.png").read_bytes())
    done = score(masks)
    results = json.loads((done.folder / "results.json").read_text())
    assert (results["masks"], results["mask_files"]) == (str(masks), 3)
    assert (results["mask_files_superfluous"], results["void_as"]) == (2, "wrong")
    assert "checkpoint" not in results
    assert results["parameters"] is None
    assert "2 more files there belong to no image scored: a.png, b.png" in capsys.readouterr().out


def test_arrays_and_probabilities_score_as_pictures_do(masks, score):
    expected = score(masks, "--void_as=skip").record.final["iou"]
    for i in range(3):
        labels = read_mask(masks / f"{i}.png")
        (masks / f"{i}.png").unlink()
        np.save(masks / f"{i}.npy", labels.astype(np.int64))
    assert score(masks, "--void_as=skip").record.final["iou"] == expected


def test_class_maps_are_scored_by_their_rule(masks, score, folder_root):
    rng = np.random.default_rng(0)
    pairs = []
    for i in range(3):
        (masks / f"{i}.png").unlink()
        truth = read_mask(folder_root / f"labels/val/{i}.png")
        scores = rng.random((2, *truth.shape)).astype(np.float32)
        content = {"keys": np.array([0, 1]), "high_res": scores}
        np.save(masks / f"{i}.npy", content, allow_pickle=True)
        labels = np.concatenate([np.full((1, *truth.shape), 0.5), scores]).argmax(0)
        pairs += [(t, p) for t, p in zip(truth.flat, labels.flat, strict=True) if t != 255]
    found = score(masks, "--mask_rule=threshold:0.5").record.final["iou"]
    assert found == pytest.approx(slow(pairs), abs=1e-12)


def test_labels_are_refined_by_the_crf_before_they_are_scored_again(masks, score, folder_root):
    crf = ["--crf.backend=torch", "--crf.iterations=2", "--crf.bi_rgb_std=30", "--gt_prob=0.8"]
    final = score(masks, *crf).record.final
    pairs = []
    for i in range(3):
        labels = read_mask(masks / f"{i}.png")
        truth = read_mask(folder_root / f"labels/val/{i}.png")
        values = soft_labels(labels, 0.8)
        assert values.classes.tolist() == [0, 1, 2]
        image = read_image(folder_root / f"images/val/{i}.png")
        refined = DenseCRF(iterations=2, bi_rgb_std=30, backend="torch")(image, values.maps)
        pairs += zip(truth.flat, refined.argmax(0).flat, strict=True)
    expected = slow((t, p) for t, p in pairs if t != 255)
    assert final["crf"]["iou"] == pytest.approx(expected, abs=1e-12)
    assert final["void_predicted"]["pixels"] > 0  # of the masks as they are


def test_cityscapes_submission_is_scored_as_by_its_script(city, tmp_path, monkeypatch):
    """Label ids, some of them of no class that is scored, named as the server takes them."""
    pytest.importorskip("cityscapesscripts", reason="cityscapesscripts is not installed")
    from cityscapesscripts.evaluation import evalPixelLevelSemanticLabeling as script

    monkeypatch.setattr(np, "in1d", np.isin, raising=False)  # it was written for an older NumPy
    script.args.quiet, script.args.JSONOutput = True, False
    rng = np.random.default_rng(4)
    (tmp_path / "results").mkdir()
    files, truth = [], []
    for pair in city.split("val").pairs:
        labels = read_mask(pair.mask)
        guess = np.where(
            rng.random(labels.shape) < 0.6, labels, rng.choice(LABEL_IDS, labels.shape)
        )
        guess = np.where(np.isin(guess, LABEL_IDS), guess, 0)  # "unlabeled" where it is none
        guess[rng.random(labels.shape) < 0.1] = 0
        files.append(tmp_path / f"results/{pair.id}_pred_labelIds.png")
        Image.fromarray(guess.astype(np.uint8)).save(files[-1])
        truth.append(str(pair.mask))
    expected = script.evaluateImgLists(list(map(str, files)), truth, script.args)
    place = ["--data=Cityscapes", f"--data.root={city.root}", f"--runs_dir={tmp_path / 'runs'}"]
    masks = [f"--masks={tmp_path / 'results'}", "--mask_values=labels"]
    final = validate.main([*masks, *place, *QUIET]).record.final
    assert final["iou"] == pytest.approx(
        {name: expected["classScores"][name] for name in Cityscapes.classes}, rel=1e-12
    )
    assert final["void_predicted"]["share"] > 0.05
    scores = final["cityscapes"]
    assert scores["iou_category"] == pytest.approx(
        {name: expected["categoryScores"][name] for name in scores["iou_category"]}, rel=1e-12
    )
    assert scores["iiou_mean"] == pytest.approx(expected["averageScoreInstClasses"], rel=1e-12)
