import pytest
import yaml

from deeplab_lit.ablate.plan import check_settings, fingerprint, in_words, label, labels_of, plan
from deeplab_lit.ablate.sweep import SweepError, read_sweep


def test_every_setting_is_trained_once_a_seed_and_seen_early(runs):
    assert [(r.setting, r.seed) for r in runs] == [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert len({r.fit.folder for r in runs}) == 4
    assert runs[1].fit.args == (
        "--model.lr=0.1",
        "--model.atrous_rates=[2, 4]",
        "--seed_everything=0",
    )
    assert runs[1].fit.folder.name.startswith("atrous_rates-2-4-seed0-")
    checkpoint = runs[1].fit.folder / "checkpoints/best.ckpt"
    assert runs[1].validate.args == (f"--ckpt_path={checkpoint}",)


def test_seeds_and_options_can_be_given(sweep, tmp_path):
    made = plan(sweep, tmp_path, seeds=3, crf=True, options=["--data.root=x"])
    assert [t.seed for t in made] == [0, 0, 1, 1, 2, 2]
    assert all(t.fit.args[-1] == "--data.root=x" for t in made)
    assert all(t.validate.args[-1] == "--crf" for t in made)


@pytest.mark.parametrize(
    "option",
    ["--model.atrous_rates=[6]", "--model.init_args.atrous_rates=[6]", "--model.atrous_rates+=6"],
)
def test_an_option_may_not_override_what_the_settings_differ_in(sweep, tmp_path, option):
    with pytest.raises(SweepError, match="settings of rates differ in that"):
        plan(sweep, tmp_path, options=["--model.lr=1", option])


def test_settings_of_the_evaluation_share_a_training(sweep_file, tmp_path):
    parameters = {"crf.bi_w": {"values": [3, 4]}, "eval.scales": {"value": [1.0]}}
    first, second = plan(read_sweep(sweep_file(parameters=parameters)), tmp_path)
    assert first.fit == second.fit
    assert not any("crf" in word or "eval" in word for word in first.fit.args)
    assert first.validate.folder != second.validate.folder
    assert second.validate.args[1:] == ("--eval.scales=[1.0]", "--crf.bi_w=4")


def test_scoring_after_the_crf_too_trains_nothing_again(sweep, tmp_path):
    before, after = plan(sweep, tmp_path), plan(sweep, tmp_path, crf=True)
    assert [t.fit for t in before] == [t.fit for t in after]
    assert before[0].validate.folder != after[0].validate.folder


def test_another_configuration_is_another_run_and_a_comment_is_not(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(yaml.safe_dump({"model": {"lr": 1}}))
    first = fingerprint([f"--config={path}", "--a=1"])
    assert fingerprint([f"--config={path}", "--a=2"]) != first
    path.write_text("# a remark\n" + path.read_text())
    assert fingerprint([f"--config={path}", "--a=1"]) == first
    assert fingerprint(["--config", str(path), "--a=1"]) == first
    path.write_text(yaml.safe_dump({"model": {"lr": 2}}))
    assert fingerprint([f"--config={path}", "--a=1"]) != first


def test_a_missing_configuration_is_refused(tmp_path):
    with pytest.raises(SweepError, match=r"missing\.yaml"):
        fingerprint([f"--config={tmp_path / 'missing.yaml'}"])


def test_settings_whose_short_words_are_the_same_have_whole_ones(sweep_file):
    values = ["a/poly.yaml", "b/poly.yaml"]
    sweep = read_sweep(sweep_file(parameters={"config": {"values": values}}))
    assert labels_of(sweep) == ["config a/poly.yaml", "config b/poly.yaml"]
    values = ["a/poly.yaml", "b/step.yaml"]
    sweep = read_sweep(sweep_file(parameters={"config": {"values": values}}))
    assert labels_of(sweep) == ["config poly", "config step"]


def test_settings_in_words_have_the_names_of_the_paper():
    assert label({"model.atrous_rates": [6, 12, 18, 24]}) == "atrous_rates 6, 12, 18, 24 (ASPP-L)"
    assert label({"model.head": "aspp", "crf.bi_w": 4}) == "head aspp; bi_w 4"
    assert in_words([12]) == "12 (LargeFOV)"
    assert in_words([12, 13]) == "12, 13"
    assert in_words([[6], {"a": 1}]) == "[6], {'a': 1}"
    assert in_words("configs/table2/poly_30_6k.yaml") == "poly_30_6k"


def test_seeds_that_nobody_could_run_are_refused_before_they_are_planned(sweep, tmp_path):
    with pytest.raises(SweepError, match="with 1,000,000,000 seeds 2,000,000,000 runs"):
        plan(sweep, tmp_path, seeds=10**9)


@pytest.fixture
def planned(sweep_file, tmp_path):
    """Plans a sweep with these values of one parameter."""

    def make(name, values, **options):
        sweep = read_sweep(sweep_file(parameters={name: {"values": values}}))
        return plan(sweep, tmp_path / "runs/rates", **options)

    return make


def test_what_fit_and_validate_take_passes_and_leaves_nothing(planned, tmp_path, capsys):
    check_settings(planned("model.atrous_rates", [[1], [2, 4]], crf=True), "ab")
    check_settings(planned("crf.bi_w", [3, 4], seeds=2), "ab")
    assert not (tmp_path / "runs").exists()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model.ratess", "all settings: --model.ratess is no option of fit"),
        (
            "crf.bi_ww",
            "all settings: --crf.bi_ww is no option of DenseCRF: did you mean --crf.bi_w?",
        ),
        ("data.no_such", "no_such"),
    ],
)
def test_names_that_do_not_exist_are_refused_for_training_and_scoring(planned, name, said):
    with pytest.raises(SweepError) as caught:
        check_settings(planned(name, [1, 2]), "ab")
    assert said in str(caught.value)


def test_only_the_settings_that_are_not_taken_are_named(planned):
    with pytest.raises(SweepError) as caught:
        check_settings(planned("model.lr", [0.1, "high", "low"], seeds=3), "abc")
    said = str(caught.value)
    assert said.count("\n") == 2
    assert "“b”: " in said
    assert "high" in said
    assert "“c”: " in said
    assert "“a”" not in said
