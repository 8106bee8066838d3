import subprocess
import sys

import pytest
import wandb

from deeplab_lit.ablate.__main__ import main, split_options, wandb_variables
from deeplab_lit.ablate.plan import plan
from deeplab_lit.ablate.sweep import SweepError, read_sweep


def test_options_with_a_dot_go_to_the_trainings():
    own_words, fit_options = split_options(
        ["x.yaml", "--jobs", "2", "--data.root", "a b", "--model.lr=1", "--crf"]
    )
    assert own_words == ["x.yaml", "--jobs", "2", "--crf"]
    assert fit_options == ["--data.root=a b", "--model.lr=1"]


def test_help_is_answered_before_anything_heavy_is_imported():
    code = """
import sys
from deeplab_lit.ablate.__main__ import main
try:
    main(["--help"])
except SystemExit as stop:
    print(stop.code)
heavy = ["torch", "lightning", "torchmetrics", "numpy", "scipy", "matplotlib", "PIL", "jinja2"]
print([name for name in [*heavy, "wandb"] if name in sys.modules])
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-2:] == ["0", "[]"]


@pytest.mark.parametrize("rest", [[], ["--jobs", "2"], ["--model.lr=1"]])
def test_an_option_of_the_trainings_without_a_value_takes_no_other_option_for_it(rest):
    with pytest.raises(SweepError, match=r"--data\.root has no value: write --data\.root=VALUE"):
        split_options(["x.yaml", "--data.root", *rest])


@pytest.mark.parametrize(("name", "tag"), [("a" * 70, "a" * 64), ("a, b", "a  b"), ("x", "x")])
def test_any_name_of_a_grid_is_a_tag_that_wandb_takes(name, tag, sweep_file):
    tags = wandb_variables(read_sweep(sweep_file(name=name)))["WANDB_TAGS"].split(",")
    assert wandb.Settings(run_tags=tags).run_tags == ("ablation", tag)


def test_runs_go_to_the_project_and_entity_of_the_file(sweep_file):
    found = wandb_variables(read_sweep(sweep_file(entity="us", project="p")))
    assert (found["WANDB_ENTITY"], found["WANDB_PROJECT"]) == ("us", "p")
    assert wandb_variables(read_sweep(sweep_file())).keys() == {"WANDB_TAGS"}


@pytest.mark.parametrize(("option", "entity"), [([], "us"), (["--entity=me"], "me")])
def test_the_entity_of_the_file_is_that_of_the_dashboards(option, entity, sweep_file, monkeypatch):
    asked = []
    save = "deeplab_lit.ablate.dashboard.save_dashboards"
    monkeypatch.setattr(save, lambda sweep, *rest: asked.append(sweep.entity) or {})
    main([str(sweep_file(entity="us")), "--dashboard", *option])
    assert asked == [entity]


@pytest.mark.parametrize("option", ["--jobs=0", "--seeds=0", "--jobs=2x"])
def test_options_out_of_range_are_refused(option, sweep_file, capsys):
    with pytest.raises(SystemExit) as stop:
        main([str(sweep_file()), option])
    assert stop.value.code == 2


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/none"])
def test_a_place_where_nothing_can_be_written_is_a_sentence(place, sweep_file, tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as stop:
        main([str(sweep_file()), f"--runs_dir={tmp_path / place}"])
    assert stop.value.code == 2
    assert "choose another --runs_dir" in capsys.readouterr().err
    main([str(sweep_file()), f"--runs_dir={tmp_path / place}", "--report"])
    assert "Nothing to report" in capsys.readouterr().err


def test_options_that_fit_does_not_take_start_no_run(sweep_file, tmp_path, capsys):
    """Said once, not once a setting and seed."""
    with pytest.raises(SystemExit) as stop:
        main([str(sweep_file()), f"--runs_dir={tmp_path / 'runs'}", "--model.momentun=0.9"])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.count("--model.momentun is no option of fit") == 1
    assert "all settings: " in said
    assert not (tmp_path / "runs").exists()


def test_ctrl_c_while_settings_are_checked_ends_it(sweep_file, tmp_path, monkeypatch, capsys):
    def pressed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("deeplab_lit.cli.run.parse_run", pressed)
    with pytest.raises(SystemExit) as stop:
        main([str(sweep_file()), f"--runs_dir={tmp_path}"])
    assert stop.value.code == 130
    assert capsys.readouterr().err == ""
    assert not (tmp_path / "rates").exists()


def test_settings_that_are_done_are_not_run_or_checked_again(
    sweep_file, tmp_path, make_run, capsys
):
    """Their options may be gone from `fit` by now."""
    parameters = {"model.lrr": {"values": [1, 2]}, "seed_everything": {"value": 0}}
    path = sweep_file(parameters=parameters)
    for run in plan(read_sweep(path), tmp_path / "rates"):
        make_run(run, 0.5)
    main([str(path), f"--runs_dir={tmp_path}"])
    assert "4 done" in capsys.readouterr().out
    assert not (tmp_path / "rates/logs").exists()
    assert (tmp_path / "rates/report.html").is_file()


def test_a_wrong_file_is_a_sentence(sweep_file, capsys):
    with pytest.raises(SystemExit) as stop:
        main([str(sweep_file(method="random"))])
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert "only grid is run here" in said


def test_a_setting_that_fails_is_told_and_the_others_are_reported(
    sweep_file, tmp_path, tiny_args, make_run, capsys
):
    """By the real command. Settings that are trained and scored: notebooks/02, in its test."""
    given = ("--model.atrous_rates", "--trainer.max_steps")
    options = [x for x in tiny_args(tmp_path / "runs") if not x.startswith((*given, "--runs_dir"))]
    command = ["python", "-m", "deeplab_lit.fit", *options, "--trainer.max_steps=2", "${args}"]
    parameters = {"model.atrous_rates": {"values": [[2, 4], [0]]}}  # no network has rate 0
    path = sweep_file(command=command, parameters=parameters)
    args = [str(path), f"--runs_dir={tmp_path / 'runs'}", "--jobs=2", "--data.val_size=2", "--crf"]
    folder = tmp_path / "runs/rates"
    make_run(
        plan(read_sweep(path), folder, crf=True, options=["--data.val_size=2"])[0], 0.5, crf=0.6
    )
    with pytest.raises(SystemExit) as stop:
        main(args)
    assert stop.value.code == 1
    said = capsys.readouterr()
    assert "2 done, 1 failed, 1 left out" in said.out
    assert "atrous_rates must be positive integers up to 1000000, got [0]" in said.err
    assert (folder / "report.html").is_file()
