"""Trainings behind frozen layers: with kept features they are what they are without."""

import shutil
from collections import namedtuple

import pytest
import torch
from lightning.pytorch.strategies import SingleDeviceStrategy

from deeplab_lit import fit, validate
from deeplab_lit.atomic import NoRoomError, WriteError
from deeplab_lit.data import DataError
from deeplab_lit.errors import UserError
from deeplab_lit.training.cached_features import cache_in_words

usage = namedtuple("usage", "total used free")
FROZEN = {"freeze": "backbone"}
WHOLE = {"crop_size": "whole", "scales": (1.0,)}


def weights_after(make_module, make_data, make_trainer, **options):
    module = make_module(**FROZEN, **options)
    trainer = make_trainer(max_steps=6, val_check_interval=3, check_val_every_n_epoch=None)
    trainer.fit(module, make_data(4, 2, **WHOLE))
    assert module.net.backbone.cache is None
    return module.net.state_dict(), module.scores.miou


def test_a_training_with_kept_features_is_the_same_training(
    make_module, make_data, make_trainer, tmp_path
):
    """Four images, mirrored or not, in three epochs: eight files, and two to validate on."""
    fixtures = make_module, make_data, make_trainer
    plain, plain_score = weights_after(*fixtures)
    folder = str(tmp_path / "features")
    for _ in range(2):  # the second finds them all
        cached, score = weights_after(*fixtures, feature_cache=folder)
        assert score == pytest.approx(plain_score, abs=1e-6)
        for name, values in plain.items():
            torch.testing.assert_close(cached[name], values, rtol=1e-4, atol=1e-6)
        files = sorted(tmp_path.glob("features/*/*.pt"))
        assert 6 <= len(files) <= 10
        ages = {file: file.stat().st_mtime_ns for file in files}
    assert ages == {file: file.stat().st_mtime_ns for file in tmp_path.glob("features/*/*.pt")}


def test_a_training_that_goes_on_has_the_features_of_its_checkpoint(
    make_module, make_data, make_trainer, tmp_path
):
    options = {**FROZEN, "feature_cache": str(tmp_path / "features")}
    trainer = make_trainer(max_steps=1, limit_val_batches=0)
    trainer.fit(make_module(**options), make_data(2, 1, **WHOLE))
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    module = make_module(**options)
    with torch.no_grad():
        for values in module.net.backbone.parameters():
            values.add_(1)
    again = make_trainer(max_steps=2, limit_val_batches=0)
    again.fit(module, make_data(2, 1, **WHOLE), ckpt_path=tmp_path / "one.ckpt")
    assert again.global_step == 2
    assert len(list(tmp_path.glob("features/*"))) == 1


def test_a_strategy_that_splits_the_weights_is_refused(
    make_module, make_data, make_trainer, tmp_path
):
    class Splitting(SingleDeviceStrategy):
        restore_checkpoint_after_setup = True

    trainer = make_trainer(strategy=Splitting(), max_steps=1)
    with pytest.raises(UserError, match="which Splitting splits among processes"):
        trainer.fit(make_module(**FROZEN, feature_cache=str(tmp_path)), make_data(2, 1, **WHOLE))


def test_the_checkpoint_of_a_run_with_kept_features_is_one_like_any_other(
    tiny_args, tmp_path, capsys
):
    changes = {
        "--loader.crop_size": "whole",
        "--model.freeze": "[conv1,bn1,layer1,layer2]",
        "--model.feature_cache": str(tmp_path / "features"),
        "--run": "cached",
    }
    with pytest.warns(UserWarning, match="keeps random weights"):
        run = fit.main(tiny_args(tmp_path, **changes))
    said = capsys.readouterr()
    assert "the first 3 of the backbone's parts" in said.out + said.err
    assert "of 19 images, " in said.out + said.err  # 8 twice, and 3
    checkpoint = run.folder / "checkpoints/best.ckpt"
    scored = validate.main(
        [f"--ckpt_path={checkpoint}", f"--runs_dir={tmp_path}", "--trainer.accelerator=cpu"]
    )
    assert scored.module.scores.miou == pytest.approx(run.record.best["miou"], abs=1e-6)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "the first layer of the backbone learns"),
        ({"freeze": "layer2"}, "the first layer of the backbone learns"),
        ({**FROZEN, "aux_head": True}, "does not go with aux_head"),
        ({**FROZEN, "compile": True}, "does not go with compile"),
    ],
)
def test_a_network_whose_features_cannot_be_kept_is_refused(make_module, options, reason):
    with pytest.raises(ValueError, match=reason):
        make_module(**options, feature_cache="features")


@pytest.mark.parametrize(
    "loader", [{"crop_size": 65}, {"scales": (0.5, 1.0), "batch_size": 1}, {"color_jitter": 0.2}]
)
def test_images_that_never_come_again_are_refused(make_module, make_data, tmp_path, loader):
    data = make_data(**(WHOLE | loader))
    with pytest.raises(DataError, match="come again as they are"):
        make_module(**FROZEN, feature_cache=str(tmp_path)).record_data(data)
    make_module(**FROZEN).record_data(data)


def test_a_disk_without_room_is_refused_with_what_is_needed(
    make_module, make_data, tmp_path, monkeypatch
):
    """16 images twice and 5 once, of 21×21 cells of 128 features: 37 × 225,792 bytes."""
    module = make_module(**FROZEN, feature_cache=str(tmp_path))
    rest = module.net, module.cached_layers, make_data(**WHOLE)
    folder = str(tmp_path / "new" / "one")
    for precision, needed in ((None, 8_354_304), ("bf16-mixed", 4_177_152)):
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=needed: usage(0, 0, free))
        assert "of 37 images, " in cache_in_words(folder, *rest, precision)
        monkeypatch.setattr(shutil, "disk_usage", lambda path, free=needed: usage(0, 0, free - 1))
        with pytest.raises(NoRoomError, match="make room, or choose another"):
            cache_in_words(folder, *rest, precision)


def test_a_file_in_place_of_the_folder_is_refused_before_the_run_begins(
    make_module, make_data, tmp_path
):
    (tmp_path / "file").touch()
    module = make_module(**FROZEN, feature_cache=str(tmp_path / "file"))
    with pytest.raises(WriteError, match=r"feature_cache .*file is no folder .*\(File exists\)"):
        cache_in_words(
            module.feature_cache, module.net, module.cached_layers, make_data(**WHOLE), None
        )
