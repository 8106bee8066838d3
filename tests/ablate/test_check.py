import sys

import pytest

from deeplab_lit.ablate.check import check
from deeplab_lit.ablate.plan import plan
from deeplab_lit.ablate.sweep import SweepError, read_sweep
from deeplab_lit.errors import plain_errors


@pytest.fixture
def planned(sweep_file, tmp_path):
    """Plans a sweep with these values of one parameter."""

    def make(name, values, **options):
        sweep = read_sweep(sweep_file(parameters={name: {"values": values}}))
        return plan(sweep, tmp_path / "runs/rates", **options)

    return make


def test_what_fit_and_validate_take_passes_and_leaves_nothing(planned, tmp_path, capsys):
    check(planned("model.atrous_rates", [[1], [2, 4]], crf=True), "ab")
    check(planned("crf.bi_w", [3, 4], seeds=2), "ab")
    assert not (tmp_path / "runs").exists()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.ratess", "all settings: --model.ratess is no option of fit"),
        ("crf.bi_ww", "all settings: --crf.bi_ww is no option of fit: did you mean --crf.bi_w?"),
        ("data.no_such", "no_such"),
    ],
)
def test_names_that_do_not_exist_are_refused_for_training_and_scoring(planned, name, said):
    with pytest.raises(SweepError) as caught:
        check(planned(name, [1, 2]), "ab")
    assert said in str(caught.value)


def test_only_the_settings_that_are_not_taken_are_named(planned):
    with pytest.raises(SweepError) as caught:
        check(planned("model.lr", [0.1, "high", "low"], seeds=3), "abc")
    said = str(caught.value)
    assert said.count("\n") == 2
    assert "“b”: " in said
    assert "high" in said
    assert "“c”: " in said
    assert "“a”" not in said


def test_what_is_done_is_not_checked_again(planned, make_run):
    runs = planned("model.lr", [0.1, "high"])
    make_run(runs[1], 0.5)
    for step in (runs[1].fit, runs[1].validate):
        (step.folder / "results.json").write_text('{"finished": true}')
    check(runs, "ab")


def test_ctrl_c_while_settings_are_checked_ends_it(planned, monkeypatch):
    """It comes out of `fit` as exit code 130, which is no refusal."""

    def pressed(args):
        with plain_errors():
            raise KeyboardInterrupt

    monkeypatch.setattr("deeplab_lit.fit.main", pressed)
    with pytest.raises(KeyboardInterrupt):
        check(planned("model.lr", [0.1, 0.2]), "ab")


def test_a_refusal_without_a_word_is_one(planned, monkeypatch):
    monkeypatch.setattr("deeplab_lit.fit.main", lambda args: sys.exit(3))
    with pytest.raises(SweepError, match="all settings: it does not say why"):
        check(planned("model.lr", [0.1, 0.2]), "ab")
