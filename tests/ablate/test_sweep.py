import pytest
from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

from deeplab_lit.ablate.sweep import SweepError, arguments, read_sweep


def test_a_grid_is_all_combinations_in_the_order_of_the_file(sweep_file):
    parameters = {
        "model.head": {"values": ["aspp", "aspp_concat"]},
        "model.lr": {"value": 0.1},
        "model.atrous_rates": {"values": [[6], [6, 12]]},
    }
    sweep = read_sweep(sweep_file(parameters=parameters))
    assert sweep.settings() == [
        {"model.head": "aspp", "model.atrous_rates": [6]},
        {"model.head": "aspp", "model.atrous_rates": [6, 12]},
        {"model.head": "aspp_concat", "model.atrous_rates": [6]},
        {"model.head": "aspp_concat", "model.atrous_rates": [6, 12]},
    ]
    assert sweep.fixed == {"model.lr": 0.1}
    assert sweep.seeds == (0,)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [("val/miou", (False, "")), ("val_crf/miou", (True, "")), ("val_crf/miou13", (True, "13"))],
)
def test_the_metric_says_what_settings_are_compared_by(sweep_file, metric, expected):
    sweep = read_sweep(sweep_file(metric={"name": metric, "goal": "maximize"}))
    assert (sweep.after_crf, sweep.subset) == expected


def test_seeds_are_repetitions_and_no_setting(sweep):
    assert sweep.seeds == (0, 1)
    assert sweep.settings() == [{"model.atrous_rates": [1]}, {"model.atrous_rates": [2, 4]}]


def test_what_the_command_says_is_kept_around_the_parameters(sweep_file):
    words = ["${env}", "python", "-m", "deeplab_lit.fit", "--a=1", "${args}", "--b=2"]
    sweep = read_sweep(sweep_file(command=words))
    assert (sweep.before, sweep.after) == (("--a=1",), ("--b=2",))


def test_a_command_may_name_another_value_before_the_parameters(sweep_file):
    """As a default: `${args}` comes after it and counts."""
    words = ["${interpreter}", "-m", "deeplab_lit.fit", "--model.atrous_rates=[6]", "${args}"]
    assert read_sweep(sweep_file(command=words)).before == ("--model.atrous_rates=[6]",)


def test_arguments_are_those_that_wandb_agents_give():
    values = {"model.atrous_rates": [3, 6], "model.lr": 0.01, "model.compile": True, "run": "x"}
    theirs = create_sweep_command_args({"args": {k: {"value": v} for k, v in values.items()}})
    assert arguments(values) == theirs["args"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"method": "bayes"}, "only grid"),
        ({"early_terminate": {"type": "hyperband"}}, "early_terminate"),
        ({"parameters": None}, "parameters is missing"),
        ({"parameters": {"model.lr": {"min": 0, "max": 1}}}, "model.lr"),
        (
            {"parameters": {"a": {"distribution": "q_uniform", "min": 0, "max": 1e9, "q": 1e-9}}},
            "no ra",
        ),
        ({"parameters": {"a": {"values": 5}}}, "got {'values': 5}"),
        ({"parameters": {"a": {"values": "12"}}}, "each value once"),
        ({"parameters": {"a": {"values": {"b": 1}}}}, "each value once"),
        ({"parameters": {"a": {"values": []}}}, "each value once"),
        ({"parameters": {"a": {"values": None}}}, "each value once"),
        ({"parameters": {"a": [1, 2]}}, "each value once"),
        ({"parameters": {c: {"values": [*range(10)]} for c in "abcdefgh"}}, "100,000,000 settings"),
        (
            {
                "parameters": {
                    "a": {"values": [*range(1000)]},
                    "seed_everything": {"values": [0, 1, 2]},
                }
            },
            "with 3 seeds 3,000 runs",
        ),
        ({"parameters": {"a": {"values": [0, 1]}, "seed_everything": {"value": -1}}}, "0 or more"),
        ({"parameters": {"a": {"values": [0, 1]}, "seed_everything": {"value": 2**32}}}, "whole"),
        ({"name": "a\nb"}, "line break"),
        ({"name": "a" * 300}, "at most 200 bytes"),
        ({"parameters": {"model": {"parameters": {"lr": {"values": [1]}}}}}, "with dots"),
        ({"parameters": {"model.lr": {"values": [1, 1]}}}, "each value once"),
        ({"parameters": {"model.lr": {"value": 1}}}, "nothing to compare"),
        ({"parameters": {"seed_everything": {"values": [0, 1]}}}, "nothing to compare"),
        ({"parameters": {"a": {"values": [0, 1]}, "seed_everything": {"value": "x"}}}, "whole"),
        ({"command": None}, "deeplab_lit.fit"),
        ({"command": ["python", "-m", "deeplab_lit.fit"]}, "${args}"),
        ({"command": ["python", "-m", "deeplab_lit.fit", "${args}", "${x}"]}, "macros"),
        ({"command": 5}, "deeplab_lit.fit"),
        ({"command": "python -m deeplab_lit.fit ${args}"}, "should run deeplab_lit.fit"),
        ({"command": ["torchrun", "--x=2", "-m", "deeplab_lit.fit", "${args}"]}, "torchrun --x=2"),
        ({"command": ["deeplab_lit.fit", "${args}", "--model.atrous_rates=[6]"]}, "leave it out"),
        ({"command": ["deeplab_lit.fit", "--seed_everything=3", "${args}"]}, "leave it out"),
        ({"command": ["deeplab_lit.fit", "${args}", "--experiment=x"]}, "leave it out"),
        ({"parameters": {"run": {"value": "x"}, "a": {"values": [1, 2]}}}, "parameter run"),
        ({"parameters": {5: {"values": [1, 2]}}}, "parameter 5"),
        ({"project": 5}, "project should be"),
        ({"name": "a/b"}, "slash"),
        ({"entity": 5}, "entity should be"),
        ({"name": ".."}, "not . or .."),
        ({"metric": {"name": "val/accuracy"}}, "val/miou or val_crf/miou"),
        ({"metric": [1]}, "val/miou or val_crf/miou"),
        ({"metric": {"name": "val/miou-16"}}, "of a subset of the classes, as val/miou16"),
    ],
)
def test_what_would_not_be_followed_is_refused_with_the_file_named(change, said, sweep_file):
    path = sweep_file(**change)
    with pytest.raises(SweepError) as refused:
        read_sweep(path)
    assert said in str(refused.value)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize("text", ["a: [", "just words", ""])
def test_files_that_are_no_sweeps_are_refused(text, tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(SweepError, match=r"x\.yaml is no"):
        read_sweep(path)
    with pytest.raises(SweepError, match="cannot be read"):
        read_sweep(tmp_path / "missing.yaml")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("parameters: {a: {values: &x [1, *x]}}", "contains itself"),
        (
            "a: &a [1, 2]\n"
            + "".join(
                f"{n}: &{n} [{', '.join([f'*{b}'] * 9)}]\n"
                for b, n in zip("abcdefgh", "bcdefghi", strict=True)
            ),
            "values",
        ),
        ("name: x\nname: y", "twice"),
    ],
)
def test_values_that_hold_themselves_or_explode_are_a_sentence(text, said, tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(SweepError, match=said):
        read_sweep(path)
