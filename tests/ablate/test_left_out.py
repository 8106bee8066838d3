from deeplab_lit.ablate.left_out import left_out
from deeplab_lit.ablate.process import log_of
from deeplab_lit.ablate.results import read_results

LABELS = ["1", "2, 4"]


def said(runs):
    return left_out(runs, read_results(runs), LABELS)


def log(step, text):
    log_of(step).parent.mkdir(parents=True, exist_ok=True)
    log_of(step).write_text(text)


def test_of_a_whole_ablation_nothing_is_left_out(done):
    assert said(done) == []


def test_runs_that_are_not_done_are_counted(runs, make_run):
    make_run(runs[0], 0.5)
    assert said(runs) == ["3 runs are not done yet and left out."]
    make_run(runs[1], 0.5)
    make_run(runs[2], 0.5)
    assert said(runs) == ["1 run is not done yet and left out."]


def test_what_failed_is_named_with_what_it_said(runs, make_run):
    make_run(runs[0], 0.5)
    for run in (runs[1], runs[3]):
        log(run.fit, "$ python -m …\nerror: the loss is nan\nfailed: the loss is nan\n")
    log(runs[2].fit, "$ python -m …\nerror: the loss is nan\n")  # it was begun again since
    assert said(runs) == [
        "Left out: “2, 4”, seed 0; “2, 4”, seed 1: its training failed: the loss is nan.",
        "1 run is not done yet and left out.",
    ]


def test_a_failed_validation_is_named_too(done):
    (done[2].validate.folder / "results.json").unlink()
    log(done[2].validate, "$ python -m …\nfailed: no such data\n")
    assert said(done) == ["Left out: “1”, seed 1: its validation failed: no such data."]


def test_damaged_files_are_named(done):
    path = done[1].validate.folder / "images.npz"
    path.write_bytes(path.read_bytes()[:50])
    (line,) = said(done)
    assert line.startswith(f"Left out: “2, 4”, seed 0: {path} is damaged: ")
    assert line.endswith(f"; delete {path.parent} to have it made again.")
    (done[0].fit.folder / "checkpoints/best.ckpt").write_text("?")
    assert said(done)[0].endswith(f"; delete {done[0].fit.folder}* to have it made again.")
