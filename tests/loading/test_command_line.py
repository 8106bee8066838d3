"""Data sets and loaders as a user names them, on command lines and in runs' configurations."""

import subprocess
import sys

import pytest
import yaml

from deeplab_lit import fit, validate
from deeplab_lit.runs.trained_on import SCORING, read_run

FIT = [
    *("--data=Shapes", "--data.train_size=8", "--data.val_size=2", "--loader.batch_size=2"),
    *("--loader.crop_size=33", "--loader.num_workers=0", "--model.backbone=resnet10_quarter"),
    *("--model.weights=none", "--model.norm=batch", "--model.scales=[1.0]"),
    *("--trainer.max_steps=1", "--trainer.accelerator=cpu", "--trainer.logger=false"),
    "--trainer.enable_progress_bar=false",
]  # fmt: skip
SETS = ["--val_data=Shapes", "--val_data.val_size=3", "--val_data.draw_seed=7"]
UNLABELED = ["--unlabeled_data=Shapes", "--unlabeled_data.train_size=5"]
CPU = ["--trainer.accelerator=cpu", "--trainer.logger=false"]


def test_data_sets_need_no_lightning():
    code = "import sys, deeplab_lit.data; print({'lightning', 'torch'} & {*sys.modules})"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "set()"


def test_a_training_knows_its_three_data_sets_and_validate_follows_them(tmp_path, capsys):
    where = [f"--runs_dir={tmp_path}", "--run=one", "--experiment=x"]
    done = fit.main([*FIT, *SETS, *UNLABELED, *where, "--trainer.val_check_interval=1"])
    shown = capsys.readouterr().out
    assert "WARNING: nothing is learned from --unlabeled_data" in shown
    line = next(line for line in shown.split("\n") if line.startswith("Data "))
    assert line.split(maxsplit=1)[1] == (
        "Shapes: 8 training images (train), Shapes: 3 validation images (val), "
        "Shapes: 5 unlabeled images, 7 classes"
    )
    assert done.record.final["images"] == 3
    config = yaml.safe_load((tmp_path / "x/one/config.yaml").read_text())
    assert config["val_data"]["init_args"]["draw_seed"] == 7
    assert config["unlabeled_data"]["init_args"]["train_size"] == 5
    assert config["loader"]["batch_size"] == 2
    path = f"--ckpt_path={done.folder / 'checkpoints/best.ckpt'}"
    scored = validate.main([path, *CPU, f"--runs_dir={tmp_path}"])
    assert scored.record.final["miou"] == done.record.final["miou"]
    other = validate.main(
        [path, *CPU, f"--runs_dir={tmp_path}", "--data=Shapes", "--data.val_size=2"]
    )
    assert other.record.final["images"] == 2


def test_a_former_option_is_told_its_name(capsys):
    with pytest.raises(SystemExit) as stop:
        fit.main([*FIT, "--data.batch_size=2"])
    assert stop.value.code == 2
    assert "--data.batch_size is called --loader.batch_size now" in capsys.readouterr().err


def test_other_classes_to_validate_on_are_refused(folder_root, capsys):
    with pytest.raises(SystemExit) as stop:
        fit.main([*FIT, "--val_data=Folder", f"--val_data.root={folder_root}"])
    assert stop.value.code == 2
    assert "error: Folder has other classes than are trained" in capsys.readouterr().err


@pytest.mark.parametrize("sections", [SCORING, {"data": None}, None], ids=["scored", "data", "all"])
def test_the_configuration_of_an_older_run_is_read(tmp_path, sections):
    data = {"class_path": "deeplab_lit.data.Shapes", "init_args": {"val_size": 4, "batch_size": 8}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump({"data": data}))
    content = read_run(tmp_path / "config.yaml", sections)
    assert content["data"]["init_args"] == {"val_size": 4}
    if sections is None:
        assert content["loader"] == {"batch_size": 8}


@pytest.mark.parametrize("key", ["data", "val_data", "unlabeled_data"])
def test_no_data_set_of_others_is_followed_unasked(tmp_path, key):
    content = {"data": "deeplab_lit.data.Shapes", key: {"class_path": "os.system"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(Exception, match=f"its {key} are of the class 'os.system'"):
        read_run(tmp_path / "config.yaml")


def test_sizes_are_kept_in_the_configuration_and_validate_follows_them(tmp_path, capsys):
    sizes = [
        *("--loader.crop_size=[33,65]", "--loader.resize=[64,96]", "--loader.scales=[1.0]"),
        *("--loader.mirror=false", "--loader.resize_filter=bilinear"),
        *("--loader.unlabeled_crop_size=whole", "--loader.unlabeled_resize=[40,48]"),
        *("--eval.resize=[64,80]", "--eval.resize_filter=bilinear", "--eval.score_resized=true"),
    ]
    where = [f"--runs_dir={tmp_path}", "--run=one", "--experiment=x"]
    done = fit.main([*FIT, *UNLABELED, *sizes, *where, "--trainer.val_check_interval=1"])
    assert "Note: masks are brought to --eval.resize" in capsys.readouterr().out
    config = yaml.safe_load((tmp_path / "x/one/config.yaml").read_text())
    loader, scored = config["loader"], config["eval"]
    assert (loader["crop_size"], loader["resize"]) == ([33, 65], [64, 96])
    assert (loader["unlabeled_crop_size"], loader["unlabeled_resize"]) == ("whole", [40, 48])
    assert (loader["mirror"], loader["resize_filter"]) == (False, "bilinear")
    assert (scored["resize"], scored["score_resized"]) == ([64, 80], True)
    again = fit.main([f"--config={tmp_path / 'x/one/config.yaml'}", "--run=two"])
    assert again.options.loader == done.options.loader
    assert again.record.final["miou"] == done.record.final["miou"]
    last = fit.main([*where[:1], "--experiment=x", "--run=one", "--ckpt_path=last"])
    assert last.datamodule.transform.crop == (33, 65)
    path = f"--ckpt_path={done.folder / 'checkpoints/best.ckpt'}"
    capsys.readouterr()
    same = validate.main([path, *CPU, f"--runs_dir={tmp_path}"])
    assert same.record.final["miou"] == done.record.final["miou"]
    assert "scales [1.0], seen and scored at 80×64" in capsys.readouterr().out
    assert same.record.about["inference"] == {
        "scales": [1.0],
        "resize": [64, 80],
        "resize_filter": "bilinear",
        "score_resized": True,
    }
    kept = [path, *CPU, f"--runs_dir={tmp_path}", f"--eval.cache_dir={tmp_path / 'kept'}"]
    validate.main(kept)
    with pytest.raises(SystemExit):  # what is kept is of another size
        validate.main([*kept, "--eval.score_resized=false"])
    assert "kept" in capsys.readouterr().err
