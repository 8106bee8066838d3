"""A run's configuration says what it was trained on, and may run nothing."""

import shutil
from pathlib import Path

import pytest
import yaml

from deeplab_lit.cli.defaults import SHAPES
from deeplab_lit.crf import PRESETS
from deeplab_lit.runs.trained_on import SCORING, neighborhood, read_run
from deeplab_lit.yaml_files import ConfigError


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The folder of a run of an experiment, below the default folder of runs."""
    monkeypatch.chdir(tmp_path)
    folder = Path("runs/mine/one")
    folder.mkdir(parents=True)
    return folder


DATA = {"class_path": "deeplab_lit.data.Shapes", "init_args": {"train_size": 8}}
SPEC = {"class_path": "evil.Evil", "init_args": {"a": 1}}
IN_THE_DATA = {
    "a class of a module in the folder": {"data": SPEC},
    "its name alone": {"data": "evil.Evil"},
    "a class of another package": {"data": {"class_path": "lightning.pytorch.LightningDataModule"}},
    "our class by another way": {"data": {"class_path": "deeplab_lit.data.voc.os.system"}},
    "a class among the arguments": {"data": DATA | {"init_args": {"train_size": SPEC}}},
    "arguments that no signature has": {"data": DATA | {"dict_kwargs": {"a": 1}}},
    "another configuration": {"data": "other.yaml"},
    "no data": {},
    "an option behind a dot": {"data": DATA | {"init_args": {"a.class_path": "evil.Evil"}}},
}
ELSEWHERE = {
    "a callback": {"trainer": {"callbacks": [SPEC]}},
    "a callback by name": {"trainer": {"callbacks": ["evil.Evil"]}},
    "a function as a callback": {
        "trainer": {"callbacks": {"class_path": "lightning.pytorch.callbacks.LambdaCallback",
                                  "init_args": {"on_fit_start": "evil.run"}}}},
    "a logger": {"trainer": {"logger": "evil.Evil"}},
    "a plugin": {"trainer": {"plugins": SPEC}},
    "a profiler": {"trainer": {"profiler": "evil.Evil"}},
    "a strategy": {"trainer": {"strategy": "evil.Evil"}},
    "an accelerator": {"trainer": {"accelerator": SPEC}},
    "a folder of the trainer": {"trainer": {"default_root_dir": "elsewhere"}},
    "a folder for checkpoints": {"checkpoint": {"dirpath": "elsewhere"}},
    "a name that leaves the folder": {"checkpoint": {"filename": "../../best"}},
    "a folder for a cache": {"eval": {"cache_dir": "elsewhere"}},
    "a loss": {"model": {"loss": SPEC}},
    "an optimizer": {"model": {"optimizer": SPEC}},
    "an optimizer by another way": {
        "model": {"optimizer": {"class_path": "torch.optim.os.system"}}},
    "an optimizer's arguments": {"model": {"optimizer": {"class_path": "torch.optim.SGD",
                                                         "init_args": {"a": SPEC}}}},
    "a loss by name": {"model": {"loss": "evil.Evil"}},
    "an optimizer by name": {"model": {"optimizer": "evil.Evil"}},
    "a file as an optimizer": {"model": {"optimizer": "other"}},
    "a policy by name": {"model": {"lr_policy": "evil.Evil"}},
    "a backbone by name": {"model": {"backbone": "evil.Evil"}},
    "a head by name": {"model": {"head": "evil.Evil"}},
    "an option of a module of one's own": {"model": {"extra": "evil.Evil"}},
    "metrics by name": {"metrics": "evil.Evil"},
    "metrics in a list": {"metrics": ["evil.Evil"]},
    "metrics as a class": {"metrics": [SPEC]},
    "a training step": {"model_class": "evil.Evil"},
    "a section as a class": {"crf": "evil.Evil"},
    "a section as a file": {"model": "other.yaml"},
    "an option behind a dot ": {"trainer.callbacks": [SPEC]},
    "a list that is added to": {"trainer": {"callbacks+": ["evil.Evil"]}},
}  # fmt: skip


def write(run, content):
    (run / "config.yaml").write_text(yaml.safe_dump(content))
    return run / "config.yaml"


@pytest.mark.parametrize("sections", [None, SCORING, {"data": None}])
@pytest.mark.parametrize("case", IN_THE_DATA)
def test_a_configuration_that_nobody_typed_names_data_sets_of_ours_alone(run, sections, case):
    config = write(run, IN_THE_DATA[case])
    if case == "no data" and sections is None:
        assert read_run(config, sections) == {}  # and the parser says that it is missing
        return
    with pytest.raises(ConfigError, match=rf"{config} was not typed, .* --config {config}"):
        read_run(config, sections)


@pytest.mark.parametrize("case", ELSEWHERE)
def test_what_runs_code_or_writes_elsewhere_is_refused_or_not_taken(run, case):
    config = write(run, {"data": DATA} | ELSEWHERE[case])
    with pytest.raises(ConfigError, match=f"{config} was not typed"):
        read_run(config)
    assert read_run(config, {"data": None}) == {"data": DATA}
    if case == "an accelerator":
        with pytest.raises(ConfigError):
            read_run(config, SCORING)
        return
    taken = read_run(config, SCORING)
    assert taken.pop("data") == DATA
    assert not any(taken.values())


def test_a_training_goes_on_with_all_plain_options(run):
    content = yaml.safe_load(SHAPES.read_text("utf-8"))
    content["trainer"] |= {"precision": "bf16-mixed", "strategy": "ddp", "devices": [0, 1],
                           "callbacks": None, "logger": True}  # fmt: skip
    content |= {"checkpoint": {"monitor": "val/miou", "filename": "best", "dirpath": None}}
    content.pop("experiment", None)
    said = {"runs_dir": "/elsewhere", "experiment": "../x", "run": "a", "ckpt_path": "b"}
    assert read_run(write(run, content | said)) == content


def test_scoring_begins_as_the_training_scored(run):
    evaluation = {"window": [97, 97], "scales": [1.0], "cache_dir": "elsewhere"}
    trainer = {"precision": "bf16-mixed", "max_steps": 3}
    content = {"data": DATA, "eval": evaluation, "trainer": trainer}
    content |= {"model": {"lr": 1.0}, "crf": {"enabled": True}, "seed_everything": 3}
    assert read_run(write(run, content), SCORING) == {
        "data": DATA,
        "eval": {"window": [97, 97], "scales": [1.0]},
        "trainer": {"precision": "bf16-mixed"},
    }


def test_a_run_that_lies_where_it_was_written_has_its_neighbors_there(run, monkeypatch):
    there = {"runs_dir": "runs", "experiment": "mine"}
    config = write(run, {"data": DATA} | there)
    assert neighborhood(config) == there
    shutil.copytree(run, "copied/mine/one")
    assert neighborhood(Path("copied/mine/one/config.yaml")) == {}


def test_a_data_set_of_the_users_is_followed_where_its_name_was_typed(run):
    config = write(run, {"data": SPEC})
    assert read_run(config, {"data": None}, typed=["evil.Evil"]) == {"data": SPEC}


def test_classes_of_a_training_are_followed_where_their_names_were_typed(run):
    loss = {"class_path": "mine.Focal", "init_args": {"gamma": 2}}
    adam = {"class_path": "torch.optim.AdamW", "init_args": {"betas": [0.9, 0.99]}}
    model = {"lr": 1, "loss": loss, "optimizer": adam}
    config = write(run, {"data": DATA, "model": model, "model_class": "mine.Module"})
    content = read_run(config, typed={"mine.Focal", "mine.Module"})
    assert (content["model"], content["model_class"]) == (model, "mine.Module")
    for typed in ((), {"mine.Focal"}, {"mine.Module"}):
        with pytest.raises(ConfigError, match="not followed unasked"):
            read_run(config, typed=typed)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Balanced", {"background": 0}),
        ("OHEM", {"threshold": 0.7, "variant": "hrnet"}),
        ("ClassWeighted", {"file": "weights.json", "rule": "enet"}),
    ],
)
def test_a_training_with_a_loss_of_this_package_goes_on_unasked(run, name, arguments):
    loss = {"class_path": f"deeplab_lit.training.losses.{name}", "init_args": arguments}
    content = {"data": DATA, "model": {"loss": loss, "teacher": "teacher.ckpt"}}
    assert read_run(write(run, content)) == content


@pytest.mark.parametrize(
    "loss",
    [
        "deeplab_lit.training.losses",
        "deeplab_lit.training.losses.x.Evil",
        {"class_path": "evil.Evil", "init_args": {"file": "x.json"}},
        {"class_path": "deeplab_lit.training.losses.Balanced",
         "init_args": {"background": {"class_path": "evil.Evil"}}},
        {"class_path": "deeplab_lit.training.losses.Balanced", "init_args": {"background": "e.E"}},
    ],
)  # fmt: skip
def test_no_other_class_is_followed_in_the_place_of_a_loss(run, loss):
    with pytest.raises(ConfigError, match="not followed unasked"):
        read_run(write(run, {"data": DATA, "model": {"loss": loss}}))


@pytest.mark.parametrize(
    "trainer",
    [
        {"max_time": "00:12:00:00", "val_check_interval": "00:01:00:00", "profiler": "simple"},
        {"callbacks": [{"class_path": "EarlyStopping", "init_args": {"monitor": "val/loss"}}]},
    ],
)
def test_a_run_of_ones_own_with_a_time_limit_or_early_stopping_goes_on(tmp_path, trainer):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({"data": {"class_path": "Shapes"}, "trainer": trainer}))
    assert read_run(path)["trainer"] == trainer


UNSAID = dict.fromkeys((*PRESETS["vgg16"], "iterations", "normalization"))


@pytest.mark.parametrize(
    ("section", "expected"),
    [
        (None, None),
        ({"bi_w": 5}, {"bi_w": 5}),
        ({"enabled": False, "preset": "vgg16", **UNSAID, "backend": "auto"}, None),
        (
            {"enabled": True, "preset": "vgg16", **UNSAID, "pos_w": 1.5, "backend": "torch"},
            {**PRESETS["vgg16"], "pos_w": 1.5, "backend": "torch"},
        ),
        ({"enabled": True, "pos_w": 1.5}, {**PRESETS["resnet101"], "pos_w": 1.5}),
    ],
)
def test_a_crf_that_an_older_version_wrote_means_the_same_as_then(run, section, expected):
    config = run / "config.yaml"
    config.write_text(yaml.safe_dump({"data": DATA, "crf": section}))
    assert read_run(config)["crf"] == expected


@pytest.mark.parametrize("metrics", ["my.M", ["my.M"], [{"class_path": "my.M", "init_args": {}}]])
def test_metrics_are_followed_where_their_names_were_typed(run, metrics):
    config = write(run, {"data": DATA, "metrics": metrics})
    assert read_run(config, typed={"my.M"})["metrics"] == metrics
    with pytest.raises(ConfigError, match="not followed unasked"):
        read_run(config, typed={"my.Other"})
