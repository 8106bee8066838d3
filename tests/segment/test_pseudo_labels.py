import gzip
import json

import numpy as np
import pytest
import torch
from PIL import Image

import deeplab_lit
from deeplab_lit.data import Cityscapes, Folder, Shapes
from deeplab_lit.data.class_maps import read_class_maps
from deeplab_lit.data.shapes import draw_sample
from deeplab_lit.predict import main
from deeplab_lit.segment import pseudo_labels
from deeplab_lit.segment.segmenter import Segmenter


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    for i in range(3):
        Image.fromarray(draw_sample(1, i)[0][: 70 + i, :80]).save(folder / f"{i}.png")
    Image.fromarray(draw_sample(1, 3)[0][:60, :90]).save(folder / "sub/3.jpg")
    return folder


def run(trained, images, out, rule=None, **options):
    words = [f"--{key}" + ("" if v is True else f"={v}") for key, v in options.items()]
    words += [] if rule is None else [f"--min_confidence={rule}"]
    args = [f"--ckpt_path={trained}", f"--out={out}", "--device=cpu", "--num_workers=0"]
    return main([*args, "--pseudo_labels", *words, "--images", str(images)])


def read(out):
    return json.loads((out / "pseudo_labels.json").read_text())


def masks(out):
    return {p.relative_to(out / "masks").as_posix(): np.asarray(Image.open(p))
            for p in sorted((out / "masks").rglob("*.png"))}  # fmt: skip


def probabilities(trained, images, **options):
    """By name; what the network gives of each image alone."""
    segment = Segmenter(deeplab_lit.load(trained), **options)
    files = {"0": "0.png", "1": "1.png", "2": "2.png", "sub/3": "sub/3.jpg"}
    pixels = {name: np.asarray(Image.open(images / file)) for name, file in files.items()}
    return {f"{name}.png": segment.probabilities(array).numpy() for name, array in pixels.items()}


def test_pixels_below_a_number_are_void(trained, images, tmp_path, capsys):
    assert run(trained, images, tmp_path / "out", 0.5) == 0
    written, void, pixels = masks(tmp_path / "out"), 0, 0
    for name, p in probabilities(trained, images).items():
        expected = np.where(p.max(0) < np.float32(0.5), 255, p.argmax(0))
        np.testing.assert_array_equal(written[name], expected)
        void, pixels = void + (expected == 255).sum(), pixels + expected.size
    assert 0 < void < pixels
    found = read(tmp_path / "out")
    assert found["finished"] is True
    assert found["images"] == 4
    assert found["share_void"] == pytest.approx(void / pixels)
    assert found["min_confidence"] == "number 0.5"
    assert len(found["checkpoint_sha256"]) == 64
    assert f"Void: {void / pixels:.2%} of the pixels of 4 images" in capsys.readouterr().out
    assert not (tmp_path / "out/first_pass").exists()


@pytest.mark.parametrize("rule", ["bdl", "cbst:0.3"])
def test_thresholds_of_each_class_are_found_over_all_images(trained, images, tmp_path, rule):
    run(trained, images, tmp_path / "out", rule)
    p, found = probabilities(trained, images), read(tmp_path / "out")
    flat = np.concatenate([each.reshape(7, -1) for each in p.values()], axis=1)
    best, labels = flat.max(0), flat.argmax(0)
    for index, (name, about) in enumerate(found["classes"].items()):
        x = np.sort(best[labels == index])
        assert about["pixels_predicted"] == len(x)
        if rule == "bdl":
            expected = min(x[round(len(x) / 2)], 0.9) if len(x) else 0
        else:
            expected = x[::-1][int(0.3 * len(x)) - 1] if int(0.3 * len(x)) else 1
        assert about["threshold"] == pytest.approx(expected, abs=2.6e-5), name
        if len(x) > 100 and rule == "cbst:0.3":
            assert about["share_kept"] == pytest.approx(0.3, abs=0.02)
    written = masks(tmp_path / "out")
    kept = np.concatenate([written[name].ravel() for name in p])
    limits = np.array(found["thresholds"])[labels]
    clear = np.abs(best - limits) > 1e-4
    if rule == "bdl":
        np.testing.assert_array_equal(kept[clear], np.where(best < limits, 255, labels)[clear])
    else:
        ratio = flat / np.array(found["thresholds"])[:, None]
        clear = np.abs(ratio.max(0) - 1) > 1e-3
        expected = np.where(ratio.max(0) < 1, 255, ratio.argmax(0))
        np.testing.assert_array_equal(kept[clear], expected[clear])
    assert not (tmp_path / "out/first_pass").exists()


@pytest.mark.parametrize("rule", ["bdl", "cbst"])
@pytest.mark.parametrize("stops_in", ["write_look", "_labeled"])
def test_it_goes_on_where_it_was_stopped(
    trained, images, tmp_path, monkeypatch, rule, stops_in, capsys
):
    """In the first pass, and in the second; each image is looked at once."""
    run(trained, images, tmp_path / "whole", rule)
    original, calls = getattr(pseudo_labels, stops_in), []

    def stop_at_third(*args):
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(pseudo_labels, stops_in, stop_at_third)
        with pytest.raises((KeyboardInterrupt, SystemExit)):
            run(trained, images, tmp_path / "cut", rule)
    left = list((tmp_path / "cut/first_pass").rglob("*.gz"))
    assert len(left) == (2 if stops_in == "write_look" else 4)
    assert not (stops_in == "_labeled" and read(tmp_path / "cut")["finished"])
    times = {path: path.stat().st_mtime_ns for path in left}
    seen = []
    look = pseudo_labels.look_at
    monkeypatch.setattr(
        pseudo_labels, "look_at", lambda *a, **k: (seen.append(1), look(*a, **k))[1]
    )
    assert run(trained, images, tmp_path / "cut", rule) == 0
    assert len(seen) == 4 - len(times)
    again, whole = (masks(tmp_path / name) for name in ("cut", "whole"))
    assert again.keys() == whole.keys()
    assert all(np.array_equal(again[name], whole[name]) for name in whole)
    assert read(tmp_path / "cut") == read(tmp_path / "whole")
    capsys.readouterr()
    assert run(trained, images, tmp_path / "cut", rule) == 0
    assert "4 of 4 images are done already" in capsys.readouterr().out
    assert len(seen) == 4 - len(times)


def test_a_mask_that_was_removed_is_made_again_alike(trained, images, tmp_path):
    run(trained, images, out := tmp_path / "out", "bdl")
    before = masks(out)
    (out / "masks/1.png").unlink()
    assert run(trained, images, out, "bdl") == 0
    assert all(np.array_equal(mask, before[name]) for name, mask in masks(out).items())
    assert len(masks(out)) == 4


@pytest.mark.parametrize(
    ("rule", "change", "words"),
    [
        ("bdl", {"rule": "cbst"}, "settings (min_confidence in"),
        ("0.5", {"rule": "0.6"}, "settings (min_confidence in"),
        ("0.5", {"eval.flip": "true"}, "settings (flip, fuse in"),
        ("bdl", {"image": True}, "settings (images_sha256 in"),
    ],
)
def test_masks_of_other_rules_options_or_images_are_not_mixed(
    trained, images, tmp_path, capsys, rule, change, words
):
    """Thresholds depend on all images, so that one more is another set."""
    run(trained, images, tmp_path / "out", rule)
    if change.pop("image", False):
        Image.fromarray(draw_sample(1, 9)[0]).save(images / "9.png")
    with pytest.raises(SystemExit) as stop:
        run(trained, images, tmp_path / "out", **{"rule": rule} | change)
    assert stop.value.code == 2
    assert f"holds results of other {words}" in capsys.readouterr().err


def test_a_network_that_is_sure_of_nothing_leaves_masks_of_void(trained, images, tmp_path, capsys):
    assert run(trained, images / "0.png", tmp_path / "out", 1) == 0
    assert (masks(tmp_path / "out")["0.png"] == 255).all()
    shown = capsys.readouterr().out
    assert "Void: 100.00% of the pixels of 1 image; 1 of them is nothing but void" in shown
    assert "WARNING: the network never predicts" in shown
    found = read(tmp_path / "out")
    assert found["images_all_void"] == 1
    assert {about["share_kept"] for about in found["classes"].values()} <= {0, None}


def test_an_image_that_cannot_be_read_is_told_once_and_the_others_are_done(
    trained, images, tmp_path, capsys
):
    (images / "broken.png").write_bytes(b"no image")
    for _ in range(2):
        assert run(trained, images, tmp_path / "out", "bdl") == 1
        error = capsys.readouterr().err
        assert error.count("cannot be read as an image") == 1
        assert "error: 1 image could not be read" in error
    assert len(masks(tmp_path / "out")) == 4
    assert read(tmp_path / "out")["finished"] is False


def test_damaged_files_of_an_interrupted_run_are_told(trained, images, tmp_path, capsys):
    (tmp_path / "out/first_pass/masks").mkdir(parents=True)
    run(trained, images, whole := tmp_path / "whole", "bdl")
    (tmp_path / "out/settings.json").write_bytes((whole / "settings.json").read_bytes())
    (look := tmp_path / "out/first_pass/masks/1.gz").write_bytes(
        gzip.compress(b"\x93NUMPY nothing")
    )
    with pytest.raises(SystemExit) as stop:
        run(trained, images, tmp_path / "out", "bdl")
    assert stop.value.code == 2
    assert f"{look} is damaged: remove it and start again" in capsys.readouterr().err
    (whole / "pseudo_labels.json").write_text("{}")
    with pytest.raises(SystemExit):
        run(trained, images, whole, "bdl")
    assert "pseudo_labels.json is damaged" in capsys.readouterr().err


def test_windows_views_and_the_crf_decide_as_in_predict(trained, images, tmp_path):
    from deeplab_lit.crf import DenseCRF
    from deeplab_lit.network.inference import Inference

    crf = {"iterations": 2, "pos_xy_std": 2, "backend": "torch"}
    options = {"eval.window": 65, "eval.flip": "true"}
    options |= {f"crf.{name}": value for name, value in crf.items()}
    run(trained, images, tmp_path / "out", "0.6", **options)
    inference = Inference(window=65, flip=True)
    p = probabilities(trained, images, inference=inference, crf=DenseCRF(**crf))
    for name, mask in masks(tmp_path / "out").items():
        expected = np.where(p[name].max(0) < np.float32(0.6), 255, p[name].argmax(0))
        assert (mask != expected).mean() < 0.001


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"rule": "2"}, "--min_confidence is '2.0': expected a probability in 0…1"),
        ({"submission": "voc"}, "--pseudo_labels and --submission do not go together"),
    ],
)
def test_mistakes_get_a_sentence(trained, images, tmp_path, capsys, options, words):
    with pytest.raises(SystemExit) as stop:
        run(trained, images, tmp_path / "out", **options)
    assert stop.value.code == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_threshold_without_pseudo_labels_is_refused(trained, images, tmp_path, capsys):
    args = [f"--ckpt_path={trained}", f"--out={tmp_path / 'out'}", f"--images={images}"]
    with pytest.raises(SystemExit):
        main([*args, "--min_confidence=0.5"])
    assert "--min_confidence is of --pseudo_labels, which is not given" in capsys.readouterr().err


def test_data_sets_find_the_masks_under_the_names_that_predict_gives(
    trained, tmp_path, city_root, folder_root
):
    """Of Cityscapes in folders of cities, by the names of the image files."""
    frames = city_root / "leftImg8bit/train"
    run(trained, frames, tmp_path / "city", 0)
    split = Cityscapes(str(city_root), mask_dir=str(tmp_path / "city/masks")).training()
    net = deeplab_lit.load(trained)
    for index in range(len(split.ids)):
        image, mask = split.read(index)
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None]
        with torch.no_grad():
            np.testing.assert_array_equal(mask, net(pixels)[0].argmax(0))
    run(trained, folder_root / "images/train", tmp_path / "folder", 1)
    (folder_root / "classes.txt").write_text("\n".join(Shapes.classes))
    split = Folder(str(folder_root), mask_dir=str(tmp_path / "folder/masks")).training()
    assert (split.read(0)[1] == 255).all()


LABELS = {"0": (1, 2), "1": (), "2": (3, 4, 5, 6), "sub/3": (6,)}  # of the images; class indices


@pytest.mark.parametrize("rule", ["0.5", "bdl", "cbst:0.3"])
def test_image_labels_choose_the_classes_and_probabilities_are_kept(
    trained, images, tmp_path, capsys, monkeypatch, rule
):
    """Files of probabilities that are gone are written again, with the same masks."""
    lines = [f"{name} " + " ".join(str(i - 1) for i in ids) for name, ids in LABELS.items()]
    (labels := tmp_path / "labels.txt").write_text("\n".join(lines))
    options = {"image_labels": labels, "probabilities": True}
    out = tmp_path / "out"
    assert run(trained, images, out, rule, **options) == 0
    said = capsys.readouterr().out
    assert "has 7 labels of 6 classes for 4 images" in said
    assert "WARNING: the network sees no foreground in 4 images" in said
    assert "Probabilities: 0." in said
    written, found = masks(out), read(out)
    limits = np.array(found["thresholds"])
    counts = np.zeros(7, int)
    for name, p in probabilities(trained, images).items():
        present = [0, *LABELS[name.removesuffix(".png")]]
        p[[c for c in range(7) if c not in present]] = 0
        p /= p.sum(0)
        ratio = p / limits[:, None, None] if rule.startswith("cbst") else p
        expected = np.where(p.max(0) < limits[p.argmax(0)], 255, p.argmax(0))
        if rule.startswith("cbst"):
            expected = np.where(ratio.max(0) < 1, 255, ratio.argmax(0))
        assert (written[name] != expected).mean() < 0.002  # thresholds have steps
        assert set(np.unique(written[name])) <= {*present, 255}
        counts += np.isin(range(7), written[name])
        maps = read_class_maps(out / "probabilities" / name.replace(".png", ".npz"), 7)
        assert set(maps.classes) <= set(present)
        np.testing.assert_allclose(maps.maps, p[maps.classes], atol=2e-3)
    rows = found["classes"].values()
    assert [row["images_listed"] for row in rows] == [4, 1, 1, 1, 1, 1, 2]
    assert [row["images"] for row in rows] == counts.tolist()
    assert found["image_labels"] == str(labels)

    (gone := out / "probabilities/sub/3.npz").unlink()
    assert run(trained, images, out, rule, **options) == 0
    assert gone.is_file()
    assert "3 of 4 images are done already" in capsys.readouterr().out
    assert all(np.array_equal(mask, written[name]) for name, mask in masks(out).items())
    labels.write_text(labels.read_text().replace("sub/3 5", "sub/3 4"))
    with pytest.raises(SystemExit):
        run(trained, images, out, rule, **options)
    assert "other settings (image_labels_sha256" in capsys.readouterr().err


def test_pseudo_labels_can_have_the_values_of_the_labels_trained_on(
    trained, images, tmp_path, capsys
):
    content = torch.load(trained, weights_only=True)
    values = {name: 10 * (index + 1) for index, name in enumerate(content["label_values"])}
    content["label_values"] = values
    torch.save(content, moved := tmp_path / "moved.ckpt")
    run(trained, images, tmp_path / "indices", 0.5)
    assert run(moved, images, tmp_path / "labels", 0.5, mask_values="labels") == 0
    assert "--data.mask_values labels" in capsys.readouterr().out
    table = np.full(256, 255)
    table[:7] = list(values.values())
    for name, mask in masks(tmp_path / "labels").items():
        np.testing.assert_array_equal(mask, table[masks(tmp_path / "indices")[name]])

    values["wire"] = 255
    torch.save(content, moved)
    with pytest.raises(SystemExit) as stop:
        run(moved, images, tmp_path / "none", 0.5, mask_values="labels")
    assert stop.value.code == 2
    assert "wire has the value 255 in labels, which is void" in capsys.readouterr().err


def test_lists_leave_only_their_images(trained, images, tmp_path):
    (tmp_path / "ids").write_text("0\n1\n2")
    (tmp_path / "labeled").write_text("1\n3")
    options = {"ids": tmp_path / "ids", "all_but": tmp_path / "labeled"}
    assert run(trained, images, tmp_path / "out", 0.5, **options) == 0
    assert list(masks(tmp_path / "out")) == ["0.png", "2.png"]
