import json
import re
import shlex
import shutil
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from deeplab_lit import convert, export, fit, validate
from deeplab_lit.cli.run import command_line
from deeplab_lit.data import Shapes
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.weights.published import NAMED, Published, Quoted


def test_validate_gives_the_score_of_fit(trained, tmp_path, capsys):
    best = json.loads((trained.parents[1] / "results.json").read_text())["best"]
    done = validate.main([f"--ckpt_path={trained}", f"--runs_dir={tmp_path}"])
    results = json.loads((done.folder / "results.json").read_text())
    scores = ("miou", "pixel_accuracy", "mean_accuracy", "fw_iou", "iou")
    assert {key: results["final"][key] for key in scores} == {key: best[key] for key in scores}
    assert f"{100 * best['miou']:.2f} %" in capsys.readouterr().out


def test_an_evaluation_flag_wins_over_the_checkpoint(trained, tmp_path):
    done = validate.main(
        [f"--ckpt_path={trained}", f"--runs_dir={tmp_path}", "--eval.scales=[1.0,0.5]"]
    )
    assert done.module.evaluation.scales == (1.0, 0.5)
    assert done.module.net.scales == (1.0,)


def test_one_process_and_two_give_the_same_score(trained, tmp_path):
    """Three images on two processes: one process has an image more."""
    args = [f"--ckpt_path={trained}", f"--runs_dir={tmp_path}", "--experiment=ddp"]
    args += ["--crf.backend=torch", "--crf.bi_rgb_std=20", "--eval.trimap=classes"]
    args += ["--eval.window=97", "--eval.flip=true", "--trainer.accelerator=cpu"]
    validate.main([*args, "--run=1"])
    command = [sys.executable, "-m", "deeplab_lit.validate", *args, "--run=2"]
    command += ["--trainer.devices=2", "--trainer.strategy=ddp"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    scores, trimaps, images = {}, {}, {}
    for processes in (1, 2):
        folder = tmp_path / f"ddp/{processes}"
        results = json.loads((folder / "results.json").read_text())
        assert results["processes"] == processes
        del results["final"]["crf"]["seconds_per_image"]
        scores[processes] = results["final"]
        trimaps[processes] = (folder / "trimap.csv").read_text()
        with np.load(folder / "images.npz") as arrays:
            images[processes] = {name: arrays[name].tolist() for name in arrays}
        assert (folder / "report.html").is_file()
        pictures = {path.name for path in folder.glob("*.png")}
        assert {"worst_best.png", "classes.png", "confusion.png", "trimap.png"} <= pictures
    assert scores[1] == scores[2]
    assert scores[2]["images"] == 3
    assert trimaps[1] == trimaps[2]
    assert images[1] == images[2]
    assert len(images[1]["ids"]) == 3
    assert trimaps[1].startswith("width,miou,miou_crf")


def test_how_many_images_were_scored_is_said_where_the_scores_are(trained, tmp_path, capsys):
    args = [f"--ckpt_path={trained}", f"--runs_dir={tmp_path}", "--trainer.limit_val_batches=2"]
    done = validate.main(args)
    assert "on Shapes val, 2 of 3 images, scales [1.0]: mIoU" in capsys.readouterr().out
    assert json.loads((done.folder / "results.json").read_text())["final"]["images"] == 2


@pytest.mark.parametrize("args", [[], ["--data=Shapes"], ["--runs_dir=x"]])
def test_without_a_checkpoint_it_says_what_is_missing(args, capsys):
    with pytest.raises(SystemExit) as stop:
        validate.main(args)
    assert stop.value.code == 2
    assert "validate needs --ckpt_path FILE" in capsys.readouterr().err


def test_the_next_command_that_fit_prints_works_after_a_named_run(trained):
    runs = trained.parents[3]
    done = validate.main(["--ckpt_path", str(trained), f"--runs_dir={runs}"])
    assert done.folder.name.endswith("-validate")
    assert (done.folder / "results.json").is_file()


def test_crf_scores_stand_beside_the_networks(trained, tmp_path, capsys):
    args = ["--crf", "--crf.backend=torch", "--crf.iterations=2", f"--runs_dir={tmp_path}"]
    done = validate.main([f"--ckpt_path={trained}", *args])
    final = json.loads((done.folder / "results.json").read_text())["final"]
    assert final["crf"]["iterations"] == 2
    out = capsys.readouterr().out
    assert f"{100 * final['crf']['miou']:.2f}" in out
    assert "gain" in out
    checkpoint = torch.load(trained, weights_only=True)["hyper_parameters"]
    assert not [key for key in checkpoint if "crf" in key]


def test_a_validation_that_was_stopped_goes_on_from_its_cache(trained, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    args = [f"--ckpt_path={trained}", f"--runs_dir={tmp_path}", "--experiment=cached"]
    args += [f"--eval.cache_dir={cache}", "--crf.backend=torch", "--crf.bi_rgb_std=20"]
    seen = []
    forward = DeepLabV2.forward

    def counted(self, images, scales=None):
        seen.append(len(images))
        if len(seen) == 2:
            raise KeyboardInterrupt
        return forward(self, images, scales)

    with monkeypatch.context() as patched:
        patched.setattr(DeepLabV2, "forward", counted)
        with pytest.raises(SystemExit) as stop:
            validate.main(args)
    assert stop.value.code == 130
    assert len(list(cache.glob("*.npy.gz"))) == 1
    seen.clear()
    with monkeypatch.context() as patched:
        patched.setattr(DeepLabV2, "forward", lambda *a: seen.append(1) or forward(*a))
        stopped = validate.main(args)
    assert len(seen) == 2  # of three images
    whole = validate.main([a for a in args if "cache_dir" not in a])
    scores = []
    for done in (stopped, whole):
        final = json.loads((done.folder / "results.json").read_text())["final"]
        scores.append([final["miou"], final["crf"]["miou"]])
    assert scores[0] == pytest.approx(scores[1], abs=1e-3)


def test_what_came_from_the_cache_is_said(trained, tmp_path, capsys):
    cache = tmp_path / "cache"
    args = [f"--ckpt_path={trained}", f"--runs_dir={tmp_path}", f"--eval.cache_dir={cache}"]
    validate.main(args)
    assert f"the probabilities of 0 images came from {cache}\n" in capsys.readouterr().out
    damaged = next(cache.glob("*.npy.gz"))
    damaged.write_bytes(damaged.read_bytes()[:50])
    validate.main(args)
    shown = capsys.readouterr().out
    assert f"of 2 images came from {cache}; 1 kept there were damaged or of other pixels" in shown


def test_data_with_the_classes_in_another_order_are_scored_by_their_names(trained, tmp_path):
    """Value 5 of the masks is called as the network calls its class 6, and counts as that."""
    args = [f"--ckpt_path={trained}", f"--runs_dir={tmp_path / 'runs'}"]
    before = np.load(validate.main(args).folder / "images.npz")["counts"]
    names = list(Shapes.classes)
    names[5], names[6] = names[6], names[5]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Shapes, "classes", {name: Shapes.classes[name] for name in names})
        done = validate.main(args)
    _, true, predicted = np.load(done.folder / "images.npz")["counts"].swapaxes(0, 1)
    assert (predicted == before[:, 2]).all()
    assert (true == before[:, 1][:, [0, 1, 2, 3, 4, 6, 5]]).all()
    assert (before[:, 1, 5] != before[:, 1, 6]).any()


def test_a_cache_of_something_else_is_refused(trained, tmp_path, capsys):
    args = [
        f"--ckpt_path={trained}",
        f"--runs_dir={tmp_path}",
        f"--eval.cache_dir={tmp_path / 'c'}",
    ]
    validate.main(args)
    with pytest.raises(SystemExit) as stop:
        validate.main([*args, "--eval.scales=[0.5]"])
    assert stop.value.code == 2
    assert "other settings (scales in" in capsys.readouterr().err


def test_the_trimap_stands_on_the_screen_and_in_a_file(trained, tmp_path, capsys):
    args = [f"--ckpt_path={trained}", f"--runs_dir={tmp_path}", "--eval.trimap=classes"]
    done = validate.main(args)
    assert "pixels from a border" in capsys.readouterr().out
    assert done.record.final["trimap"]["width"] == list(range(1, 41))
    assert len((done.folder / "trimap.csv").read_text().splitlines()) == 41


def test_fit_says_in_its_checkpoint_what_it_was_trained_on(trained):
    provenance = torch.load(trained, weights_only=True)["provenance"]
    assert (provenance["init"], provenance["trained_on"]) == ("none", ["Shapes:train"])
    assert "--data=Shapes" not in str(provenance)  # what was typed is not handed on


def test_the_training_split_is_scored_only_when_that_is_wanted(trained, tmp_path, capsys):
    args = [f"--ckpt_path={trained}", f"--runs_dir={tmp_path}", "--data.val_split=train"]
    with pytest.raises(SystemExit) as stop:
        validate.main(args)
    assert stop.value.code == 2
    assert "was trained on Shapes:train" in capsys.readouterr().err
    done = validate.main([*args, "--allow_seen_split"])
    results = json.loads((done.folder / "results.json").read_text())
    assert results["validation_split_trained_on"] == ["Shapes:train"]


def test_of_a_checkpoint_without_provenance_validate_says_that_nothing_is_known(
    trained, tmp_path, capsys
):
    content = torch.load(trained, weights_only=True)
    del content["provenance"]
    torch.save(content, tmp_path / "old.ckpt")
    config = trained.parents[1] / "config.yaml"
    validate.main([f"--ckpt_path={tmp_path / 'old.ckpt'}", f"--config={config}",
                      f"--runs_dir={tmp_path}"])  # fmt: skip
    assert "it is not known which data" in capsys.readouterr().out


def test_the_cost_is_said_and_recorded(trained, tmp_path, capsys):
    args = [f"--ckpt_path={trained}", f"--runs_dir={tmp_path}", "--eval.flip=true"]
    done = validate.main([*args, "--eval.window=97", "--eval.overlap=0.1"])
    # two windows of 97 across 161 pixels and two down, each twice
    assert "8 passes through the network for an image of 161×161" in capsys.readouterr().out
    record = json.loads((done.folder / "results.json").read_text())["inference"]
    assert (record["window"], record["overlap"], record["flip"]) == ([97, 97], 0.1, True)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("--eval.overlap=1", "overlap must be from 0 to below 1, got 1.0"),
        ("--eval.window=[20,97]", "window must be from 33 pixels up"),
        ("--eval.tta_scales=[0]", "scales must be one or more positive numbers"),
    ],
)
def test_evaluation_options_out_of_range_get_a_sentence(trained, tmp_path, capsys, option, words):
    with pytest.raises(SystemExit) as stop:
        validate.main([f"--ckpt_path={trained}", f"--runs_dir={tmp_path}", option])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error


def test_a_checkpoint_in_no_run_folder_needs_its_data_named(trained, tmp_path, capsys):
    checkpoint = tmp_path / "a/b/moved.ckpt"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_bytes(trained.read_bytes())
    reasons = {
        checkpoint: f"{checkpoint} lies in no run folder, .* name them with --data and --data.root",
        checkpoint.parent: f"{checkpoint.parent} is a folder, .* like moved.ckpt",
        tmp_path / "a/b/typo.ckpt": "typo.ckpt: no such file",
    }
    for path, words in reasons.items():
        with pytest.raises(SystemExit) as stop:
            validate.main([f"--ckpt_path={path}", f"--runs_dir={tmp_path}"])
        assert stop.value.code == 2
        assert re.search(words, capsys.readouterr().err)


def test_last_is_the_best_of_the_newest_run_with_the_data_of_that_run(
    trained, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(trained.parents[4])
    done = validate.main(["--ckpt_path", "last", f"--runs_dir={trained.parents[3]}"])
    said = capsys.readouterr().out
    assert str(trained) in said.splitlines()[0]
    final = json.loads((done.folder / "results.json").read_text())["final"]
    assert final["images"] == 3
    following = shlex.split(said.splitlines()[-1])[3:]
    words = ["--ckpt_path", "last", f"--runs_dir={trained.parents[3]}", "--crf"]
    assert following == ["deeplab_lit.validate", *words]


def test_a_training_that_scored_with_the_crf_is_spoken_of(trained, tmp_path, capsys):
    run = tmp_path / "x/run"
    shutil.copytree(trained.parents[1], run)
    config = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(config.replace("crf: null", "crf: {bi_w: 5}"))
    args = [f"--ckpt_path={run / 'checkpoints/best.ckpt'}", f"--runs_dir={tmp_path / 'runs'}"]
    done = validate.main(args)
    assert "Note: the training scored with the CRF too" in capsys.readouterr().out
    assert "crf" not in json.loads((done.folder / "results.json").read_text())["final"]


class AllBackground:
    """A replacement of the CRF, in ten lines: every pixel is background."""

    def __call__(self, image, probabilities):
        sure = probabilities * 0
        sure[..., 0, :, :] = 1
        return sure

    def stays_on(self, device):
        return False

    def settings(self, device):
        return {"name": "all background"}


def test_an_object_of_ones_own_takes_the_crfs_place(trained, tmp_path, capsys):
    done = validate.main([f"--ckpt_path={trained}", f"--runs_dir={tmp_path}"], crf=AllBackground())
    refined = json.loads((done.folder / "results.json").read_text())["final"]["crf"]
    first, *others = refined["iou"].values()
    assert 0 < first == pytest.approx(refined["pixel_accuracy"])
    assert not any(others)
    assert refined["name"] == "all background"
    assert " s an image\n" in capsys.readouterr().out


def test_an_option_of_the_data_trained_on_is_refused_where_others_are_scored(
    trained, tmp_path, capsys
):
    data = {"class_path": "Shapes", "init_args": {"val_size": 1}}
    config = tmp_path / "two.yaml"
    config.write_text(json.dumps({"data": data, "val_data": data}))
    with pytest.raises(SystemExit):
        validate.main([f"--config={config}", f"--ckpt_path={trained}", "--data.val_split=train"])
    said = capsys.readouterr().err
    assert "--data.val_split is an option of the data trained on" in said
    assert "use --val_data.val_split" in said


def test_a_class_of_training_is_no_option_of_validate(trained, capsys):
    with pytest.raises(SystemExit):
        validate.main([f"--ckpt_path={trained}", "--model", "my.Module"])
    said = capsys.readouterr().err
    assert "--model is no option of validate: network and training are the checkpoint's" in said


def test_a_configuration_of_another_network_is_refused(trained, tmp_path, capsys):
    config = tmp_path / "other.yaml"
    config.write_text("data: Shapes\nmodel: {backbone: resnet101}\n")
    with pytest.raises(SystemExit):
        validate.main([f"--config={config}", f"--ckpt_path={trained}"])
    assert "other.yaml: model.backbone is resnet101, but" in capsys.readouterr().err


def test_cityscapes_further_scores_that_are_left_out_are_told(
    city, make_module, make_trainer, tmp_path, capsys
):
    module, trainer = make_module(dict(reversed(city.classes.items()))), make_trainer()
    trainer.strategy.connect(module)
    trainer.save_checkpoint(file := tmp_path / "reversed.ckpt")
    words = [f"--ckpt_path={file}", "--data=Cityscapes", f"--data.root={tmp_path}"]
    validate.build(command_line([*words, f"--runs_dir={tmp_path}"]))
    assert "Note: Cityscapes' iIoU and categories are not scored" in capsys.readouterr().out


@pytest.fixture
def published(trained, server, tmp_path, monkeypatch):
    """Somebody's network of drawn discs, by name; returns its file."""
    content = torch.load(trained, weights_only=True) | {"global_step": 0}
    content["provenance"] |= {"source": "discs.pth", "trained_on": ["Shapes:train"]}
    torch.save(content, server.folder / "discs.pth")
    entry = Published(
        file="discs.pth",
        origin="somebody",
        init="none",
        trained_on=("Shapes:train",),
        backbone="resnet10_quarter",
        name="somebody/discs",
        url=f"{server.url}/discs.pth",
        quoted=Quoted(12.3, "Shapes:val", "a test"),
    )
    monkeypatch.setitem(NAMED, "somebody/discs", entry)
    monkeypatch.setattr("deeplab_lit.runs.provenance.PUBLISHED", (entry,))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path / "torch/hub/checkpoints/discs.pth"


def test_commands_take_published_weights_by_name(
    published, trained, server, tmp_path, tiny_args, build_fit, capsys
):
    """They are downloaded once; the quoted score is said beside the measured one."""
    by_name, data = "--ckpt_path=somebody/discs", ["--data=Shapes", "--data.val_size=3"]
    data += ["--data.train_size=8", "--loader.num_workers=0", f"--runs_dir={tmp_path}"]
    done = validate.main([by_name, *data])
    said = capsys.readouterr().out
    assert f"Checkpoint  {published}, of somebody/discs" in said
    assert "Quoted      mIoU on all of Shapes val 12.3 (a test), without the CRF" in said
    assert "somebody/discs (step 0) on Shapes" in said
    results = json.loads((done.folder / "results.json").read_text())
    final = results["final"]
    assert results["quoted"] == "mIoU on all of Shapes val 12.3 (a test), without the CRF"
    assert "not measured here: mIoU on all of Shapes val 12.3" in (
        done.folder / "report.html"
    ).read_text("utf-8")
    best = json.loads((trained.parents[1] / "results.json").read_text())["best"]
    assert final["miou"] == best["miou"]
    validate.main([by_name, *data, "--data.val_split=train", "--allow_seen_split"])
    assert "Quoted" not in capsys.readouterr().out  # of other images
    run = build_fit(tiny_args(tmp_path, **{"--model.weights": "somebody/discs"}))
    assert run.module.initialize().source == "discs.pth"
    weights = torch.load(trained, weights_only=True)["state_dict"]
    assert torch.equal(run.module.net.backbone.conv1.weight, weights["net.backbone.conv1.weight"])
    export.main([by_name, f"--out={tmp_path / 'discs.safetensors'}"])
    convert.main(["somebody/discs", str(tmp_path / "discs.ckpt")])
    assert len(server.requests) == 1


def test_published_weights_are_not_fetched_for_what_is_refused_anyway(published, server, capsys):
    for command, args, words in (
        (validate, [], "somebody/discs lies in no run folder"),
        (validate, ["--data=Shapes", "--evil.scales=1"], "--evil.scales"),
        (
            fit,
            ["--data=Shapes"],
            "hold no training to go on with; .*--model.weights some",
        ),
    ):
        with pytest.raises(SystemExit):
            command.main(["--ckpt_path=somebody/discs", *args])
        assert re.search(words, capsys.readouterr().err)
    assert not server.requests


@pytest.mark.parametrize(
    ("typed", "after_crf", "following"),
    [
        ("--ckpt_path last --run a", False, "validate --ckpt_path last --crf"),
        ("--ckpt_path a --run=b -c c.yaml", False, "validate --ckpt_path a -c c.yaml --crf"),
        (
            "--ckpt_path a.ckpt --data VOC --data.root=x --crf --run=b --eval.flip true",
            True,
            "tune_crf --ckpt_path a.ckpt --data VOC --data.root=x --out crf_search",
        ),
        ("--ckpt_path a.ckpt --crf best.yaml", True, ""),
        ("--ckpt_path a.ckpt --crf.bi_w 5", True, ""),
        ("--masks m --data VOC", False, "validate --masks m --data VOC --crf"),
        ("--masks m --data VOC --crf", True, ""),
        ("--masks m --data VOC --allow_missing true", False, ""),  # the CRF refuses that
        ("--ckpt_path a.ckpt --config voc.yaml --crf", True, ""),  # tune_crf takes no --config
        (
            "--ckpt_path last --runs_dir r --crf",
            True,
            "tune_crf --ckpt_path r/x/y/checkpoints/best.ckpt --out crf_search",
        ),
    ],
)
def test_what_to_type_next_follows_from_what_was_typed(
    typed, after_crf, following, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r/x/y").mkdir(parents=True)
    (tmp_path / "r/x/y/config.yaml").touch()
    words = typed.split()
    options = SimpleNamespace(
        masks="m" if "--masks" in words else None,
        allow_missing="--allow_missing" in words,
        ckpt_path="r/x/y/checkpoints/best.ckpt" if "last" in words else "a.ckpt",
    )
    run = SimpleNamespace(options=options)
    assert " ".join(validate._following(run, words, after_crf=after_crf)) == following
