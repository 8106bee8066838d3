import json
import shlex
import zipfile
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import deeplab_lit
from deeplab_lit.data import CLASSES_OF, Shapes
from deeplab_lit.data.shapes import draw_sample
from deeplab_lit.predict import main
from deeplab_lit.segment.submission import LAYOUTS


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    (folder / "sub").mkdir(parents=True)
    pictures = [Image.fromarray(draw_sample(1, i)[0]) for i in range(5)]
    pictures[0].save(folder / "rgb.png")
    pictures[1].convert("L").save(folder / "gray.png")
    pictures[2].convert("RGBA").save(folder / "alpha.png")
    exif = Image.Exif()
    exif[274] = 6  # to be turned by 90° to stand upright
    pictures[3].crop((0, 0, 161, 120)).save(folder / "turned.jpg", exif=exif)
    gray = np.asarray(pictures[4].convert("L")).astype(np.uint16) * 257
    Image.fromarray(gray).save(folder / "sub/deep.png")
    Image.new("RGB", (50, 1)).save(folder / "thin.png")
    return folder


def run(trained, *images, out, **options):
    options = [f"--{key}={value}" for key, value in options.items()]
    args = [f"--ckpt_path={trained}", f"--out={out}", "--device=cpu", "--num_workers=0", *options]
    return main([*args, "--images", *map(str, images)])


def test_masks_hold_the_networks_classes_at_the_images_size(trained, images, tmp_path, capsys):
    out = tmp_path / "out"
    assert run(trained, images, out=out) == 0
    label, *words = shlex.split(capsys.readouterr().out.splitlines()[-1])
    assert (label, words[2]) == ("Next", "deeplab_lit.predict")
    assert words[-3:] == ["--crf", "--out", f"{out}_crf"]
    assert words[words.index("--images") + 1] == str(images)
    net = deeplab_lit.load(trained)
    pixels = torch.from_numpy(draw_sample(1, 0)[0]).permute(2, 0, 1)[None]
    with torch.no_grad():
        expected = net(pixels)[0].argmax(0).numpy()
    with Image.open(out / "masks/rgb.png") as mask:
        assert mask.mode == "P"
        np.testing.assert_array_equal(np.asarray(mask), expected)
        assert mask.getpalette()[3:6] == list(net.classes["disc"])
    sizes = {
        "rgb": (161, 161),
        "gray": (161, 161),
        "alpha": (161, 161),
        "turned": (120, 161),
        "sub/deep": (161, 161),
        "thin": (50, 1),
    }
    bare = tmp_path / "bare"
    assert run(trained, images, out=bare, legend="false") == 0
    for name, (width, height) in sizes.items():
        assert Image.open(out / f"masks/{name}.png").size == (width, height)
        assert Image.open(bare / f"overlays/{name}.jpg").size == (width, height)
        with Image.open(out / f"overlays/{name}.jpg") as overlay:
            assert overlay.width >= width
            assert overlay.height > height + 12  # the legend


def test_a_broken_image_is_reported_and_the_others_are_done(trained, images, tmp_path, capsys):
    whole = (images / "turned.jpg").read_bytes()
    (images / "broken.jpg").write_bytes(whole[: len(whole) // 2])
    assert run(trained, images, out=tmp_path / "out") == 1
    error = capsys.readouterr().err
    assert "broken.jpg" in error
    assert "error: 1 image could not be read" in error
    assert len(list((tmp_path / "out/masks").rglob("*.png"))) == 6


def test_it_goes_on_where_it_was_stopped(trained, images, tmp_path, capsys):
    out = tmp_path / "out"
    run(trained, images, out=out)
    kept = (out / "masks/rgb.png").stat().st_mtime_ns
    (out / "masks/gray.png").unlink()
    assert run(trained, images, out=out) == 0
    assert "5 of 6 images are done already" in capsys.readouterr().out
    assert (out / "masks/gray.png").is_file()
    assert (out / "masks/rgb.png").stat().st_mtime_ns == kept


def test_results_of_other_settings_are_not_mixed(trained, images, tmp_path, capsys):
    out = tmp_path / "out"
    run(trained, images, out=out)
    record = json.loads((out / "settings.json").read_text())
    assert record["scales"] == [1.0]
    with pytest.raises(SystemExit) as stop:
        run(trained, images, out=out, **{"eval.scales": "[1.0,0.5]"})
    assert stop.value.code == 2
    assert "other settings (scales in" in capsys.readouterr().err


def test_the_results_are_not_taken_for_images(trained, images):
    out = images / "out"
    assert run(trained, images, out=out) == 0
    assert run(trained, images, out=out) == 0
    assert len(list((out / "masks").rglob("*.png"))) == 6


@pytest.fixture
def film(tmp_path):
    path = tmp_path / "f.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 5, (96, 64))
    for i in range(3):
        writer.write(draw_sample(1, i)[0][:64, :96])
    writer.release()
    return path


def test_a_video_becomes_a_video_and_images_become_masks(trained, images, film, tmp_path):
    out = tmp_path / "out"
    assert run(trained, film, images / "rgb.png", out=out) == 0
    assert cv2.VideoCapture(str(out / "videos/f.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 3
    assert (out / "masks/rgb.png").is_file()


def test_a_video_that_is_done_is_skipped_and_the_command_goes_on(
    trained, images, film, tmp_path, capsys
):
    out = tmp_path / "out"
    run(trained, film, out=out)
    kept = (out / "videos/f.mp4").stat().st_mtime_ns
    assert run(trained, film, images / "rgb.png", out=out) == 0
    assert "f.avi is done already" in capsys.readouterr().out
    assert (out / "videos/f.mp4").stat().st_mtime_ns == kept
    assert (out / "masks/rgb.png").is_file()


def test_a_video_that_cannot_be_read_is_told_and_the_others_are_done(
    trained, images, film, tmp_path, capsys
):
    (tmp_path / "broken.mp4").write_bytes(b"no film" * 100)
    out = tmp_path / "out"
    assert run(trained, tmp_path / "broken.mp4", film, images / "rgb.png", out=out) == 1
    error = capsys.readouterr().err
    assert "broken.mp4: cannot be read as a video" in error
    assert "1 of the images and videos could not be read" in error
    assert (out / "videos/f.mp4").is_file()
    assert (out / "masks/rgb.png").is_file()


def test_the_masks_of_a_video_are_those_of_its_frames(trained, film, tmp_path):
    out = tmp_path / "out"
    assert run(trained, film, out=out, video_masks="true") == 0
    net, frames = deeplab_lit.load(trained), cv2.VideoCapture(str(film))
    for number in range(3):
        pixels = torch.from_numpy(frames.read()[1][..., ::-1].copy()).permute(2, 0, 1)[None]
        with torch.no_grad():
            expected = net(pixels)[0].argmax(0).numpy()
        mask = np.asarray(Image.open(out / f"videos/f_masks/{number:06}.png"))
        np.testing.assert_array_equal(mask, expected)


def test_a_folder_after_the_crf_has_the_masks_that_its_images_get_alone(trained, images, tmp_path):
    options = {"crf.iterations": 2, "crf.pos_xy_std": 2}
    assert run(trained, images, out=tmp_path / "folder", **options) == 0
    names = [path.relative_to(images) for path in images.rglob("*.*")]
    for name in names:
        run(trained, images / name, out=tmp_path / f"{name.stem}", **options)
        alone = np.asarray(Image.open(tmp_path / f"{name.stem}/masks/{name.stem}.png"))
        together = Image.open(tmp_path / "folder/masks" / name.with_suffix(".png"))
        np.testing.assert_array_equal(np.asarray(together), alone)


def test_a_submission_is_checked_and_packed(trained, images, tmp_path, capsys, monkeypatch):
    seven = replace(LAYOUTS["cityscapes"], values=(7, 8, 11, 12, 13, 17, 19))
    monkeypatch.setitem(LAYOUTS, "cityscapes", seven)  # the network has seven classes
    name, out = "berlin_000000_000019", tmp_path / "out"
    (images / "rgb.png").rename(images / f"{name}_leftImg8bit.png")
    (tmp_path / "ids.txt").write_text(f"{name}\n")
    source, options = images / f"{name}*.png", {"submission": "cityscapes"}
    assert run(trained, source, out=out, **options, ids=tmp_path / "ids.txt") == 0
    shown = capsys.readouterr().out
    assert "Checked     1 label map\n" in shown
    assert shown.splitlines()[-1] == f"To upload   {out / 'results.zip'}"
    with zipfile.ZipFile(out / "results.zip") as archive:
        assert archive.namelist() == [f"results/{name}_pred_labelIds.png"]
        label_map = np.asarray(Image.open(archive.open(archive.namelist()[0])))
    run(trained, source, out=tmp_path / "plain")
    mask = np.asarray(Image.open(tmp_path / f"plain/masks/{name}_leftImg8bit.png"))
    np.testing.assert_array_equal(label_map, np.array(seven.values)[mask])


def test_a_network_with_the_servers_classes_in_another_order_submits_nothing(
    trained, images, tmp_path, capsys, monkeypatch
):
    seven = replace(LAYOUTS["cityscapes"], values=(7, 8, 11, 12, 13, 17, 19))
    monkeypatch.setitem(LAYOUTS, "cityscapes", seven)
    names = list(Shapes.classes)
    monkeypatch.setitem(CLASSES_OF, "cityscapes", [names[1], names[0], *names[2:]])
    with pytest.raises(SystemExit) as stop:
        run(trained, images / "rgb.png", out=tmp_path / "out", submission="cityscapes")
    assert stop.value.code == 2
    assert f"0: {names[0]} → {names[1]}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("pattern", "options", "words"),
    [
        ("nothing*.png", {}, "no image there"),
        ("*.png", {"ckpt_path": "nowhere.ckpt"}, "nowhere.ckpt: no such file"),
        ("*.png", {"opacity": 2}, "--opacity must be in 0…1, got 2"),
        ("*.png", {"device": "toaster"}, "--device toaster"),
        ("*.png", {"out": "{images}/sub"}, "holds something else"),
        ("*.png", {"out": "{images}/rgb.png/x"}, "cannot be made"),
        ("*.png", {"eval.scales": "[0]"}, "scales"),
        ("*.png", {"eval.overlap": "1"}, "--eval.overlap must be from 0 to below 1"),
        ("nothing.mp4", {}, "nothing.mp4: no such file"),
        ("*.png", {"num_workers": "-1"}, "num_workers"),
        ("*.png", {"ids": "list.txt"}, "--ids: list.txt does not exist"),
        ("*.png", {"ids": ""}, "--ids got an empty name"),
        ("*.png", {"all_but": "list.txt"}, "--all_but: list.txt does not exist"),
        ("*.png", {"image_labels": "list.txt"}, "--image_labels list.txt: no such file"),
        ("*.png", {"image_labels": "{images}"}, "is a folder"),
        ("*.png", {"image_labels": "{images}/rgb.png"}, "is not UTF-8"),
        ("*.png", {"image_labels": "l", "submission": "voc"}, "do not go together"),
        ("*.mp4", {"all_but": "list.txt"}, "--all_but takes images, and"),
        ("*.mp4", {"image_labels": "list.txt"}, "--image_labels takes images, and"),
        ("*.mp4", {"submission": "voc"}, "--submission takes images"),
        ("*.png", {"submission": "voc", "mask_values": "labels"}, "has values of its own"),
        ("*.png", {"submission": "voc"}, "the server wants 21 classes, the network has 7"),
    ],
)
def test_mistakes_get_a_sentence(trained, images, tmp_path, capsys, pattern, options, words):
    options = {key: str(value).format(images=images) for key, value in options.items()}
    options.setdefault("out", str(tmp_path / "out"))
    with pytest.raises(SystemExit) as stop:
        run(trained, images / pattern, **options)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert words in error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_masks_can_have_the_values_of_the_labels_trained_on(trained, images, tmp_path, capsys):
    """As those of a folder whose void has the first line of classes.txt."""
    content = torch.load(trained, weights_only=True)
    names = list(content["hyper_parameters"]["classes"])
    assert content["label_values"] == {name: index for index, name in enumerate(names)}
    assert run(trained, images / "rgb.png", out=tmp_path / "same") == 0
    assert "--mask_values" not in capsys.readouterr().out

    content["label_values"] = {name: index + 1 for index, name in enumerate(names)}
    torch.save(content, moved := tmp_path / "moved.ckpt")
    assert run(moved, images / "rgb.png", out=tmp_path / "indices") == 0
    out = capsys.readouterr().out
    assert "background is 0 here and 1 there. --mask_values labels writes theirs" in out
    assert run(moved, images / "rgb.png", out=tmp_path / "labels", mask_values="labels") == 0
    assert "writes theirs" not in capsys.readouterr().out
    masks = [Image.open(tmp_path / f"{name}/masks/rgb.png") for name in ("indices", "labels")]
    np.testing.assert_array_equal(*[np.asarray(m) + i for m, i in zip(masks, (1, 0), strict=True)])
    np.testing.assert_array_equal(*[m.convert("RGB") for m in masks])

    del content["label_values"]["wire"]
    torch.save(content, moved)
    with pytest.raises(SystemExit) as stop:
        run(moved, images / "rgb.png", out=tmp_path / "none", mask_values="labels")
    assert stop.value.code == 2
    assert "does not say which value wire has in labels" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_last_is_the_best_of_the_newest_run(trained, images, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(trained.parents[4])
    assert run("last", images / "rgb.png", out=tmp_path / "last") == 0
    assert "runs/shapes/one/checkpoints/best.ckpt" in capsys.readouterr().out.splitlines()[0]
    assert run(trained, images / "rgb.png", out=tmp_path / "named") == 0
    masks = [(tmp_path / name / "masks/rgb.png").read_bytes() for name in ("last", "named")]
    assert masks[0] == masks[1]


def test_images_of_one_name_and_broken_ones_do_not_stop_the_others(trained, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.jpg", "a.png", "b.png", "._b.png"):
        Image.fromarray(draw_sample(1, 0)[0]).save(folder / name)
    data = bytearray((folder / "a.jpg").read_bytes())
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = b"\xfd\xe8\x9c\x40"  # 65000 × 40000
    (folder / "huge.jpg").write_bytes(data)
    assert run(trained, folder, out=tmp_path / "out") == 1
    written = sorted(path.name for path in (tmp_path / "out/masks").iterdir())
    assert written == ["a.jpg.png", "a.png.png", "b.png"]
    assert "huge.jpg: cannot be read as an image" in capsys.readouterr().err


def test_an_empty_name_does_not_mean_the_current_folder(trained, tmp_path, capsys):
    with pytest.raises(SystemExit):
        run(trained, "", out=tmp_path / "out")
    assert "--images got an empty name" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_film_that_ends_early_is_no_success_each_time(trained, film, tmp_path, capsys):
    data = bytearray(film.read_bytes())
    at = data.index(b"avih") + 8 + 16
    data[at : at + 4] = (40).to_bytes(4, "little")  # the frames that its header claims
    at = data.index(b"strh") + 8 + 32
    data[at : at + 4] = (40).to_bytes(4, "little")
    film.write_bytes(data)
    for _ in range(2):
        assert run(trained, film, out=tmp_path / "out") == 1
        shown = capsys.readouterr()
        assert "f.avi: it is damaged or ends early: of the 40 frames" in shown.err
    assert "f.avi is done already" in shown.out


def test_in_half_precision_masks_are_nearly_the_same_and_not_mixed(
    trained, images, tmp_path, capsys
):
    assert run(trained, images / "rgb.png", out=tmp_path / "full") == 0
    assert run(trained, images / "rgb.png", out=tmp_path / "half", precision="bfloat16") == 0
    full, half = (np.asarray(Image.open(tmp_path / f"{x}/masks/rgb.png")) for x in ("full", "half"))
    assert np.mean(full == half) > 0.97
    with pytest.raises(SystemExit) as stop:
        run(trained, images / "gray.png", out=tmp_path / "full", precision="bfloat16")
    assert stop.value.code == 2
    assert "precision" in capsys.readouterr().err
