import csv
import os

import pytest
from PIL import Image

from deeplab_lit.plot_trimap import main, read_curves


def write(folder, columns, around="void"):
    folder.mkdir(parents=True)
    with (folder / "trimap.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["width", *columns, "around"])
        writer.writerows(
            [width, *(0.01 * width for _ in columns), around] for width in range(1, 41)
        )
    return folder


@pytest.mark.usefixtures("full_charts")
def test_several_runs_become_one_picture(tmp_path, capsys):
    one, two = write(tmp_path / "a", ["miou", "miou_crf"]), write(tmp_path / "b", ["miou"])
    main([str(one), str(two / "trimap.csv"), f"--out={tmp_path / 'plots/trimap.png'}"])
    assert "3 curves" in capsys.readouterr().out
    assert Image.open(tmp_path / "plots/trimap.png").size[0] > 300
    curves = read_curves(one)
    assert (curves.widths, curves.around) == (list(range(1, 41)), "void")
    assert curves.miou["miou_crf"][9] == pytest.approx(0.1)


def test_runs_of_the_same_name_are_told_apart_by_their_folders(tmp_path):
    runs = [str(write(tmp_path / name / "run", ["miou"])) for name in ("x", "y")]
    main([*runs, f"--out={tmp_path / 'trimap.png'}"])


def test_bands_around_void_and_around_classes_are_not_compared(tmp_path, capsys):
    one, two = write(tmp_path / "a", ["miou"]), write(tmp_path / "b", ["miou"], "classes")
    with pytest.raises(SystemExit) as stop:
        main([str(one), str(two), f"--out={tmp_path / 'trimap.png'}"])
    assert stop.value.code == 2
    assert "b has bands around classes" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        (None, [], "Run validate with --eval.trimap"),
        ("a,b\n1,2\n", [], "no trimap.csv"),
        ("width,other,around\n1,2,void\n", [], "no trimap.csv"),
        ("width,miou,around\n1,2,nothing\n", [], "no trimap.csv"),
        ("width,miou,around\n1,0.5,void\n", ["--labels=[one,two]"], "names 2 runs, but 1"),
    ],
)
def test_mistakes_get_a_sentence(tmp_path, capsys, content, options, words):
    if content:
        (tmp_path / "trimap.csv").write_text(content)
    with pytest.raises(SystemExit) as stop:
        main([str(tmp_path), f"--out={tmp_path / 'trimap.png'}", *options])
    assert stop.value.code == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "trimap.png").exists()


def test_last_is_the_newest_validation_that_measured_bands(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["last"])
    assert "--eval.trimap" in capsys.readouterr().err
    write(tmp_path / "runs/shapes/new", ["miou", "miou_crf"])
    old = write(tmp_path / "runs/voc/old", ["miou"])
    os.utime(old / "trimap.csv", (1_000, 1_000))
    (tmp_path / "runs/voc/newest-without").mkdir()
    main(["last"])
    said = capsys.readouterr().out
    assert "runs/shapes/new" in said
    assert "2 curves in trimap.png" in said
