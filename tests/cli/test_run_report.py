"""report.html of a run: what it says is what the run's files say, and it needs nothing else."""

import json
import re
import shutil
from dataclasses import replace

import pytest

from deeplab_lit import validate
from deeplab_lit.cli import run_report
from deeplab_lit.cli.run_facts import About
from deeplab_lit.cli.run_report import leave_report, page
from deeplab_lit.data import Shapes
from tests.html_page import Page, decoded

SVG, PNG, WEBP = "data:image/svg+xml", "data:image/png", "data:image/webp"


@pytest.fixture(scope="module")
def scored(trained, tmp_path_factory):
    """Folder of a validation with the CRF and the trimap, of 2 of 3 images."""
    runs = tmp_path_factory.mktemp("scored")
    args = [f"--ckpt_path={trained}", f"--runs_dir={runs}", "--trainer.limit_val_batches=2"]
    args += ["--crf.backend=torch", "--crf.iterations=2", "--eval.trimap=classes"]
    return validate.main([*args, "--trainer.enable_progress_bar=false"]).folder


@pytest.fixture
def folder(scored, tmp_path):
    """A copy, to be changed."""
    return shutil.copytree(scored, tmp_path / "run")


@pytest.fixture
def about(trained):
    return About(
        verb="validate",
        network="a network",
        classes=Shapes.classes,
        training=trained.parents[1],
        step=4,
        typed=["--ckpt_path", str(trained)],
        following=[],
    )


def results_of(folder):
    return json.loads((folder / "results.json").read_text())


def change(folder, **entries):
    (folder / "results.json").write_text(json.dumps(results_of(folder) | entries))


def words_of(folder, about):
    return " ".join(Page(page(folder, about)).text.split())


def percent(value):
    return "–" if value is None else f"{100 * value:.2f}"


def test_every_number_is_the_one_in_results_json(scored):
    results, seen = results_of(scored), Page((scored / "report.html").read_text())
    final, refined = results["final"], results["final"]["crf"]
    assert seen.words(0)[0] == ["IoU, %", "network", "after the CRF", "gain", ""]
    rows = {name.strip(): values for name, *values in seen.words(0)[1:]}
    iou = {name: (value, refined["iou"][name]) for name, value in final["iou"].items()}
    iou |= {
        title: (final[name], refined[name])
        for title, name in (("mIoU", "miou"), ("pixel accuracy", "pixel_accuracy"))
    }
    for name, (before, after) in iou.items():
        assert rows[name][:2] == [percent(before), percent(after)]
        if "–" not in rows[name][:2]:
            gain = float(percent(after)) - float(percent(before))
            assert rows[name][2] == f"{gain:+.2f}"
    assert len(rows) == len(final["iou"]) + 4
    trimap, bands = final["trimap"], (1, 2, 5, 10, 20, 40)
    assert seen.words(1)[1:] == [
        [f"{title}, %", *(percent(trimap[key][width - 1]) for width in bands)]
        for key, title in (("miou", "mIoU"), ("miou_crf", "mIoU after the CRF"))
    ]
    facts = dict(seen.words(2))
    assert facts["Learnable parameters"] == f"{results['parameters']:,}"
    assert facts["Checkpoint"] == results["checkpoint"]
    assert facts["Optimizer steps"] in ("2", "4")
    assert facts["Seed"] == str(results["seed"])
    assert facts["Time"].startswith(f"{results['wall_seconds']:,.1f} s; ")
    assert facts["Time of the CRF"].startswith(f"{refined['seconds_per_image']:.2f} s an image")
    assert facts["Hardware"] == f"{results['device']}; 1 process"
    assert facts["Trained on"] == "Shapes:train"
    assert all(number in facts["Versions"] for number in results["versions"].values())
    text = " ".join(seen.text.split())
    assert f"mIoU {percent(final['miou'])} %, after the CRF {percent(refined['miou'])} %" in text
    assert f"over {final['classes_in_miou']} of 7 classes, on 2 of 3 images." in text
    assert f"validate \\ --ckpt_path={results['checkpoint']}" in text


def test_the_page_needs_nothing_from_elsewhere(scored):
    text = (scored / "report.html").read_text()
    seen = Page(text)
    assert seen.open == []
    assert not {"script", "link", "iframe", "object"} & set(seen.tags)
    assert not any(word in text for word in ("url(", "@import", "http:", "https:"))
    kinds = [decoded(source)[0] for source in seen.sources]
    # mIoU of a training too short to log more; trimap; images; confusion before and after
    assert kinds == [SVG, PNG, WEBP, WEBP, PNG, PNG]
    assert len(re.findall(r'<img [^>]*alt="[^"]{10,}"', text)) == len(kinds)
    heads = re.findall(r"<th[ >][^>]*", text)
    assert heads
    assert all("scope=" in head for head in heads)


def test_a_training_leaves_a_page_of_its_best_validation(trained):
    folder = trained.parents[1]
    results, seen = results_of(folder), Page((folder / "report.html").read_text())
    rows = dict(line[:2] for line in seen.words(0)[1:])
    assert rows["mIoU"] == percent(results["best"]["miou"])
    text = " ".join(seen.text.split())
    assert f"(step {results['best']['step']})" in text
    assert (
        "best of this training’s validations. The network was chosen by these same images" in text
    )
    assert "What to type next" in text
    assert [decoded(source)[0] for source in seen.sources] == [SVG, WEBP]


def test_what_makes_scores_high_or_incomparable_is_said(folder, about, trained, tmp_path):
    text = words_of(folder, about)
    assert "Only a part of the split was scored (--trainer.limit_val_batches)" in text
    assert "chosen as the best of its training by these images: it may score lower on new" in text
    void = results_of(folder)["final"] | {"miou": None}
    shutil.copytree(folder, tmp_path / "void")
    change(tmp_path / "void", final=void)
    text = words_of(tmp_path / "void", about)
    assert "All pixels scored are void" in text
    assert "chosen as the best" not in text
    change(folder, scored_on="Shapes:train", validation_split_trained_on=["Shapes:train"])
    text = words_of(folder, about)
    assert "chosen as the best of its training by images of Shapes:val." in text
    assert "trained on Shapes:train, which has images that are scored here" in text
    training = shutil.copytree(trained.parents[1], tmp_path / "old")
    change(training, monitor="train/loss")
    text = words_of(folder, replace(about, training=training))
    assert "chosen as the best of its training by train/loss." in text
    record = results_of(training)
    del record["monitor"]
    del record["scored_on"]
    (training / "results.json").write_text(json.dumps(record))
    text = words_of(folder, replace(about, training=training))
    assert "that it was validated on. If these are the images scored here, it may" in text


def test_absent_classes_and_subsets_are_explained(folder, about):
    final = results_of(folder)["final"]
    for scores in (final, final["crf"]):
        scores["iou"]["eye"], scores["classes_in_miou"] = None, 6
        scores["miou2"] = 0.5
        scores["subsets"] = {"rule": "rows", "iou": {"2": {"disc": 0.5, "eye": None}}}
    change(folder, final=final)
    seen = Page(page(folder, about))
    rows = {name.strip(): values for name, *values in seen.words(0)}
    assert rows["eye"] == ["–", "–", "–", ""]
    text = " ".join(seen.text.split())
    assert "“–”: the class occurs neither in the truth nor in what was predicted" in text
    assert "mIoU: over 6 of 7 classes. mIoU2: over 1 of 2 classes. mIoU2 is without" in text


def test_further_scores_of_cityscapes_and_of_ones_own_have_their_tables(folder, about):
    final = results_of(folder)["final"]
    part = {"iou_category_mean": 0.625, "iou_category": {"flat": 0.625, "sky": None}}
    final["cityscapes"], final["metrics"] = part | {"crf": part}, {"boundary_f1": 0.71234}
    change(folder, final=final)
    seen = Page(page(folder, about))
    assert seen.words(1) == [["boundary_f1", "0.7123"]]
    assert seen.words(2) == [
        ["%", "network", "after the CRF"],
        ["IoU of categories, mean", "62.50", "62.50"],
        ["flat", "62.50", "62.50"],
        ["sky", "–", "–"],
    ]
    assert "no iIoU" in seen.text


def test_names_from_files_are_text_and_no_markup(folder, about):
    evil = "<script>alert('1')</script> & \"more\""
    final = results_of(folder)["final"]
    for scores in (final, final["crf"]):
        scores["iou"] = {evil if name == "disc" else name: v for name, v in scores["iou"].items()}
    change(folder, final=final, checkpoint=f"runs/{evil}/best.ckpt", scored_on=evil)
    classes = {evil if name == "disc" else name: color for name, color in about.classes.items()}
    hostile = replace(about, classes=classes, network=evil, typed=[f"--run={evil}"])
    (folder / "<b>.csv").touch()
    seen = Page(page(folder, hostile))
    assert not {"script", "b>.csv"} & set(seen.tags)
    assert seen.open == []
    assert seen.text.count(evil) >= 6  # title, heading, network, class, facts
    assert "<b>.csv" in seen.text


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "folder of a run of fit (there is no "),
        ("step,a\nx,1\n", "is damaged"),
        ("step\n", "nothing"),
    ],
)
def test_where_the_training_is_not_at_hand_the_page_says_so(folder, about, tmp_path, content, says):
    training = tmp_path / "training"
    training.mkdir()
    (training / "results.json").write_text('{"miou": 0.5}')  # another program's
    if content is not None:
        (training / "metrics.csv").write_text(content)
    seen = Page(page(folder, replace(about, training=training)))
    assert says in seen.text
    assert str(training / "metrics.csv") in seen.text
    assert SVG not in [decoded(source)[0] for source in seen.sources]


def test_secrets_are_not_in_the_page(folder, about):
    typed = ["--wandb_api_key", "abcdef123", "--data.root", "https://me:pass@host/x"]
    text = page(folder, replace(about, typed=typed))
    assert "abcdef123" not in text
    assert "me:pass" not in text


def test_a_page_that_cannot_be_made_costs_no_results(folder, about, monkeypatch, capsys):
    (folder / "report.html").unlink()
    before = (folder / "results.json").read_bytes()
    monkeypatch.setattr(run_report, "curves_plot", lambda *args: 1 / 0)
    leave_report(folder, about)
    assert "report.html was not written (ZeroDivisionError" in capsys.readouterr().out
    assert (folder / "results.json").read_bytes() == before
    assert not (folder / "report.html").exists()


def test_without_results_there_is_no_page(tmp_path, about):
    leave_report(tmp_path, about)
    assert not list(tmp_path.iterdir())
