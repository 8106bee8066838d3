"""Every shipped grid, held against what W&B and `fit` take."""

import functools
from pathlib import Path

import pytest
import torch
import yaml

from deeplab_lit.ablate.plan import plan
from deeplab_lit.ablate.sweep import KEYS, read_sweep
from deeplab_lit.cli.defaults import implied_config
from deeplab_lit.cli.run import build_parser, command_line, parse_run
from deeplab_lit.training.module import DeepLabModule

ROOT = Path(__file__).parents[2]
GRIDS = sorted((ROOT / "configs/ablations").rglob("*.yaml"))
NAMES = {
    "atrous_rates",
    "branches",
    "output_stride",
    "multiscale",
    "learning_policy",
    "head",
    "crf",
    "early_return",
}


parser_of = functools.cache(lambda command: build_parser(command, "", ""))


def options_of(command, args):
    """What `fit` or `validate` understands of a command line."""
    argv = command_line(args)
    return parse_run(parser_of(command), command, argv, implied_config(command, argv))


def name_of(path):
    folder = path.parent.name
    return path.stem if folder == "ablations" else f"{folder}_{path.stem}"


def test_each_question_has_a_grid_for_voc_and_one_for_a_cpu():
    assert {name_of(path) for path in GRIDS} == {
        *NAMES,
        *(f"shapes_{name}" for name in NAMES),
        "camvid_atrous_rates",
        "camvid_early_return",
        "camvid_frozen_rates",
    }


@pytest.mark.parametrize("path", GRIDS, ids=name_of)
def test_a_grid_is_what_wandb_takes_and_its_header_says_how_to_run_it(path):
    """As the schema of W&B's package `sweeps` asks, which needs an older NumPy than we have."""
    text = path.read_text()
    content = yaml.safe_load(text)
    assert content.keys() == KEYS - {"entity"}
    assert content["method"] == "grid"
    after_crf = path.stem == "crf"
    metric = "val_crf/miou" if after_crf else "val/miou"
    assert content["metric"] == {"name": metric, "goal": "maximize"}
    for name, what in content["parameters"].items():
        assert name.replace(".", "_").isidentifier()
        assert what.keys() in ({"value"}, {"values"})
    assert content["command"][:4] == ["${env}", "python", "-m", "deeplab_lit.fit"]
    assert content["name"] == content["parameters"]["experiment"]["value"] == name_of(path)
    place = path.relative_to(ROOT)
    assert f"#   python -m deeplab_lit.ablate {place} " in text
    assert f"#   wandb sweep {place}\n" in text


@pytest.mark.parametrize("path", GRIDS, ids=name_of)
def test_fit_and_validate_understand_every_setting(path, tmp_path, monkeypatch, trained):
    monkeypatch.chdir(ROOT)
    sweep = read_sweep(path)
    for run in plan(sweep, tmp_path / sweep.name, seeds=1):
        options = options_of("fit", [*run.fit.args, f"--runs_dir={tmp_path}"])
        model = vars(options.model) | {"optimizer": None}  # which is named here, and not made
        with torch.device("meta"):  # no weights: refuses what does not go together
            DeepLabModule({"a": (0, 0, 0), "b": (1, 1, 1)}, **model)
        steps = options.trainer.max_steps * options.trainer.accumulate_grad_batches
        assert steps % options.trainer.val_check_interval == 0  # the last step is validated
        rates = sweep.settings()[run.setting].get("model.atrous_rates")
        assert rates is None or list(options.model.atrous_rates) == rates
        scoring = [f"--ckpt_path={trained}", *run.validate.args[1:]]
        options_of("validate", [*scoring, f"--runs_dir={tmp_path}"])


def test_the_rates_of_the_paper_are_in_the_grid():
    rates = [s["model.atrous_rates"] for s in read_sweep(GRIDS[0]).settings()]
    for wanted in ([12], [2, 4, 8, 12], [6, 12, 18, 24], [3, 6, 9, 12], [12, 24, 36, 48]):
        assert wanted in rates


def test_overlays_of_the_learning_policy_are_the_rows_of_table_2():
    sweep = read_sweep(ROOT / "configs/ablations/learning_policy.yaml")
    rows = {Path(s["config"]).stem for s in sweep.settings()}
    assert rows == {p.stem for p in (ROOT / "configs/table2").glob("*")} | {"voc_vgg16_largefov"}
