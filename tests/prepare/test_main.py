import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from signal import SIGINT, default_int_handler, signal
from time import sleep

import pytest
import yaml

from deeplab_lit.prepare.__main__ import DATA_SETS, data_sections, main, prepare_functions
from deeplab_lit.prepare.archives import alone_in
from deeplab_lit.yaml_files import ConfigError

FORK = multiprocessing.get_context("fork")


def test_every_data_set_that_is_downloaded_has_a_command():
    assert set(DATA_SETS) == {
        *("voc", "cityscapes", "pascal_context", "person_part"),
        *("coco2014", "coco_stuff_10k", "coco_stuff_164k", "ade20k", "gta5", "synthia"),
    }
    assert list(prepare_functions()) == list(DATA_SETS)


def test_help_comes_without_the_import_of_what_reads_images():
    code = """
import sys
from deeplab_lit.prepare.__main__ import main
for args in ["--help"], *([name, "--help"] for name in ("voc", "ade20k")):
    try:
        main(args)
    except SystemExit as end:
        assert not end.code
print(*sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "ADE20K, the challenge's 150 classes: 20,210 training" in run.stdout
    assert "--mirror" in run.stdout
    modules = set(run.stdout.splitlines()[-1].split())
    assert "deeplab_lit.cli.parser" in modules
    heavy = ("torch", "lightning", "numpy", "PIL", "cv2", "scipy", "matplotlib", "wandb")
    assert not modules & {*heavy}


def test_from_the_command_line_to_a_data_set_and_its_check(
    tmp_path, server, voc_archives, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "new/voc"
    options = ["--root", str(root), "--mirror", server.url, "--unofficial", "true"]
    assert main(["voc", *options]) == 0
    command = next(line for line in capsys.readouterr().out.splitlines() if " check " in line)
    label, *words = command.split()
    assert label == "Next"
    assert words[1:3] == ["-m", "deeplab_lit.prepare"]
    assert main([*words[3:], "--plot", "plot.png"]) == 0
    assert "VOC train_aug: 4 images" in capsys.readouterr().out
    assert (tmp_path / "plot.png").is_file()
    (root / "VOCdevkit/VOC2012/SegmentationClassAug/2008_4.png").unlink()
    assert main(words[3:]) == 1


def test_a_configuration_and_options_say_what_is_checked(tmp_path, server, voc_archives, capsys):
    root = tmp_path / "voc"
    main(["voc", "--root", str(root), "--mirror", server.url, "--unofficial=true"])
    data = {"class_path": "deeplab_lit.data.VOC", "init_args": {"train_split": "trainval_aug"}}
    config = {"experiment": "x", "seed_everything": 0, "model": {"lr": 1e-3}, "data": data}
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config))
    options = ["--config", str(tmp_path / "run.yaml"), f"--data.root={root}"]
    assert main(["check", *options, f"--plot={tmp_path / 'plot.png'}"]) == 0
    assert "VOC trainval_aug: 5 images" in capsys.readouterr().out


def test_of_a_configuration_only_the_data_is_looked_at(tmp_path):
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text("model:\n  lr: 1\ndata:\n  class_path: X\n  init_args: {root: a}\n")
    two.write_text("trainer:\n  max_steps: 1\n")
    data = {"class_path": "X", "init_args": {"root": "a"}}
    assert data_sections(str(one)) == {"data": data}
    assert data_sections(str(two)) == {}
    three = tmp_path / "three.yaml"
    three.write_text("data: X\nval_data: Y\nunlabeled_data: null\n")
    assert data_sections(str(three)) == {"data": "X", "val_data": "Y"}


def test_all_data_sets_of_a_run_are_checked(tmp_path, capsys):
    (tmp_path / "none").mkdir()
    shapes = {"class_path": "Shapes", "init_args": {"train_size": 2, "val_size": 1}}
    images = {"class_path": "Images", "init_args": {"root": str(tmp_path / "none")}}
    config = {"data": shapes, "val_data": shapes, "unlabeled_data": images}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    argv = ["check", f"--config={tmp_path / 'config.yaml'}", f"--plot={tmp_path / 'plot.png'}"]
    assert main(argv) == 1
    shown = capsys.readouterr()
    assert "val_data: Shapes val: 1 image" in shown.out
    assert "none: no images there" in shown.err


@pytest.mark.parametrize("content", [None, "a: [", "just words"])
def test_what_is_no_configuration_is_named(tmp_path, content):
    path = tmp_path / "one.yaml"
    if content:
        path.write_text(content)
    with pytest.raises(ConfigError, match=str(path)):
        data_sections(str(path))


def test_a_data_set_and_its_options_may_be_one_word(tmp_path, capsys):
    data = ["--data=Shapes", "--data.train_size=2", "--data.val_size=1"]
    disc = ["--data", "{class_path: Shapes, init_args: {max_disc: 25}}"]
    assert main(["check", *disc, *data[1:], f"--plot={tmp_path / 'plot.png'}"]) == 0
    assert "Shapes: nothing is wrong" in capsys.readouterr().out


OF_MINE = """
from deeplab_lit.data import Shapes

class Mine(Shapes):
    def __init__(self, sizes: dict[str, int]) -> None:
        super().__init__(train_size=sizes["train"], val_size=sizes["val"])
"""


def test_options_with_a_structure_of_their_own_are_taken(tmp_path, capsys, monkeypatch):
    (tmp_path / "of_mine.py").write_text(OF_MINE)
    monkeypatch.syspath_prepend(tmp_path)
    data = ["--data=of_mine.Mine", "--data.sizes", "{train: 2, val: 1}"]
    assert main(["check", *data, f"--plot={tmp_path / 'plot.png'}"]) == 0
    assert "Mine: nothing is wrong" in capsys.readouterr().out


def test_a_run_of_before_data_and_loader_were_two_is_checked(tmp_path, capsys):
    data = {"train_size": 2, "val_size": 1, "batch_size": 2, "scales": {"min": 0.5, "max": 1.5}}
    config = {"data": {"class_path": "deeplab_lit.data.Shapes", "init_args": data}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    argv = ["check", f"--config={tmp_path / 'config.yaml'}", f"--plot={tmp_path / 'plot.png'}"]
    assert main(argv) == 0
    assert "Shapes: nothing is wrong" in capsys.readouterr().out


def test_stopped_by_ctrl_c_it_goes_on_where_it_was(tmp_path, server, voc_archives, capfd):
    root = tmp_path / "voc"
    command = ["voc", "--root", str(root), "--mirror", server.url, "--unofficial=true"]
    server.cut = 4000
    server.wait.clear()
    running = FORK.Process(target=run, args=(command,))
    running.start()
    part = root / "VOCtrainval_11-May-2012.tar.part"
    while not (part.is_file() and server.requests):
        assert running.is_alive()
        sleep(0.01)
    os.kill(running.pid, SIGINT)
    running.join(300)
    assert running.exitcode == 130
    assert "Traceback" not in capfd.readouterr().err
    assert [path.name for path in root.iterdir()] == [part.name]  # and nothing that looks finished
    server.cut = None
    server.wait.set()
    part.write_bytes((server.folder / part.stem).read_bytes()[:1000])
    assert main(command) == 0
    assert ("/VOCtrainval_11-May-2012.tar", "bytes=1000-") in server.requests


def run(command):
    signal(SIGINT, default_int_handler)  # a nohup around the tests has it ignored
    sys.exit(main(command))


def test_a_full_disk_is_a_sentence_and_leaves_nothing_that_looks_finished(
    tmp_path, server, voc_archives, capsys
):
    part = tmp_path / "voc/VOCtrainval_11-May-2012.tar.part"
    part.parent.mkdir()
    part.symlink_to("/dev/full")
    with pytest.raises(SystemExit) as stop:
        main(["voc", f"--root={part.parent}", f"--mirror={server.url}"])
    assert stop.value.code == 2
    assert "No space left on device" in capsys.readouterr().err
    assert list(part.parent.iterdir()) == [part]


def test_two_at_once_in_one_folder_are_refused(tmp_path, server, voc_archives, capsys):
    root = tmp_path / "voc"
    command = ["voc", "--root", str(root), "--mirror", server.url, "--unofficial=true"]
    root.mkdir()
    held = FORK.Event()
    other = FORK.Process(target=hold, args=(root, held))
    other.start()
    assert held.wait(300)
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 2
    assert f"error: {root}: another process prepares a data set" in capsys.readouterr().err
    assert not server.requests
    other.kill()
    other.join()
    assert main(command) == 0
    assert not (root / ".prepare.lock").exists()


def hold(root, held):
    with alone_in(root):
        held.set()
        sleep(600)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["cityscapes", "--root", "ROOT"], "leftImg8bit_trainvaltest.zip is missing"),
        (["check", "--data", "VOC", "--data.root", "ROOT"], "no PASCAL VOC 2012 there"),
        (["check", "--config", "ROOT/none.yaml"], "none.yaml cannot be read"),
        (["voc", "--root", "/dev/null"], "--root /dev/null cannot be made"),
        (["ade20k", "--root", "/dev/null/x"], "--root /dev/null/x cannot be made"),
        (["check", "--data=Shapes", "--data.max_disc=500"], "error: --data.max_disc must be in"),
        (
            ["check", "--data=Shapes", "--data.batch_size=0"],
            "--data.batch_size is called --loader.",
        ),
        (["check"], "data"),
        (["voc"], "root"),
        (["imagenet", "--root", "ROOT"], "imagenet"),
    ],
)
def test_a_users_mistake_is_a_sentence_and_code_2(args, said, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main([arg.replace("ROOT", str(tmp_path)) for arg in args])
    assert stop.value.code == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_picture_of_a_check_has_a_place_named_after_the_data(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["check", "--data=Shapes", "--data.train_size=2", "--data.val_size=1"]) == 0
    assert "drawn in data_check/Shapes.png" in capsys.readouterr().out
    assert [str(path) for path in Path().rglob("*.png")] == ["data_check/Shapes.png"]
