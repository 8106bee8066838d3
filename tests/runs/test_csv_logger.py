import csv
import math

import pytest

from deeplab_lit.runs import csv_logger as metrics_file
from deeplab_lit.runs.csv_logger import SECONDS, MetricsFile, read_metrics
from deeplab_lit.runs.folder import RunFolderError


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def write(folder, steps, resume_step=None):
    log = MetricsFile(folder, resume_step)
    for step in steps:
        log.log_metrics({"loss": step / 10}, step)
    log.finalize("success")
    return log


def test_numbers_of_a_step_share_a_row(tmp_path):
    log = MetricsFile(tmp_path)
    log.log_metrics({"b": 1.5}, 3)
    log.log_metrics({"a": 2}, 7)
    log.log_metrics({"a": 0.25, "c": 4}, 3)
    log.finalize("success")
    assert rows(tmp_path) == [
        {"step": "3", "a": "0.25", "b": "1.5", "c": "4"},
        {"step": "7", "a": "2", "b": "", "c": ""},
    ]


def test_columns_are_sorted_behind_the_step_and_rows_by_step(tmp_path):
    log = MetricsFile(tmp_path)
    for step, key in ((10, "val/miou"), (9, "lr/head.bias"), (100, "train/loss")):
        log.log_metrics({key: 1.0}, step)
    log.finalize("success")
    header = (tmp_path / "metrics.csv").read_text().splitlines()[0]
    assert header == "step,lr/head.bias,train/loss,val/miou"
    assert [row["step"] for row in rows(tmp_path)] == ["9", "10", "100"]


@pytest.mark.parametrize("value", [2.4998875e-4, 1 / 3, 123456.0, 1e-12, 0.0, math.inf])
def test_values_come_back(value, tmp_path):
    log = MetricsFile(tmp_path)
    log.log_metrics({"x": value}, 0)
    log.finalize("success")
    assert float(rows(tmp_path)[0]["x"]) == pytest.approx(value, rel=1e-7)


def test_a_value_that_is_not_a_number_comes_back(tmp_path):
    log = MetricsFile(tmp_path)
    log.log_metrics({"x": math.nan}, 0)
    log.finalize("success")
    assert math.isnan(float(rows(tmp_path)[0]["x"]))


def test_a_resumed_run_goes_on_where_its_checkpoint_stands(tmp_path):
    write(tmp_path, range(10))
    log = MetricsFile(tmp_path, resume_step=7)
    log.log_metrics({"loss": 70.0, "val/miou": 0.5}, 7)
    log.finalize("success")
    found = rows(tmp_path)
    assert [row["step"] for row in found] == [str(step) for step in range(8)]
    assert [row["loss"] for row in found[:7]] == [f"{step / 10:g}" for step in range(7)]
    assert found[7] == {"step": "7", "loss": "70", "val/miou": "0.5"}
    assert found[6]["val/miou"] == ""


def test_resuming_again_and_again_changes_nothing(tmp_path):
    write(tmp_path, range(5))
    before = rows(tmp_path)
    for step in (4, 5, 6):
        write(tmp_path, [], resume_step=step)
        write(tmp_path, [4], resume_step=step)
    assert rows(tmp_path) == before


def test_nothing_is_written_before_the_first_number(tmp_path):
    log = MetricsFile(tmp_path / "run")
    log.finalize("success")
    log.finalize("success")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [None, "", "step\n", "step,loss\n"])
def test_a_resumed_run_without_numbers_begins_with_none(content, tmp_path):
    if content is not None:
        (tmp_path / "metrics.csv").write_text(content)
    write(tmp_path, [4], resume_step=3)
    assert rows(tmp_path) == [{"step": "4", "loss": "0.4"}]


def test_a_running_training_can_be_watched_but_is_not_slowed_down(tmp_path, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(metrics_file.time, "monotonic", lambda: now)
    log = MetricsFile(tmp_path)
    for step in range(100):
        log.log_metrics({"x": 1}, step)
        log.save()
    assert len(rows(tmp_path)) == 1
    now += SECONDS + 1
    log.save()
    assert len(rows(tmp_path)) == 100


@pytest.mark.parametrize("moment", ["open", "replace", "row"])
def test_a_full_disk_costs_no_row_that_was_written(moment, tmp_path, monkeypatch):
    write(tmp_path, range(3))
    before = (tmp_path / "metrics.csv").read_bytes()

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    log = MetricsFile(tmp_path, resume_step=3)
    with monkeypatch.context() as patch:
        if moment == "row":
            patch.setattr(csv.DictWriter, "writerows", full)
        else:
            patch.setattr(type(tmp_path), moment, full)
        with pytest.raises(OSError, match="No space"):
            log.log_metrics({"loss": 0.3}, 3)
    assert (tmp_path / "metrics.csv").read_bytes() == before
    log.finalize("success")  # once there is room
    assert len(rows(tmp_path)) == 4


def test_lightning_is_told_the_run_folder(tmp_path):
    log = MetricsFile(tmp_path / "run")
    assert (log.save_dir, log.name, log.version) == (str(tmp_path / "run"), "", "")
    assert log.log_hyperparams({"lr": 1}) is None


def test_a_fit_writes_a_row_a_step_also_when_it_crashes(
    make_module, make_data, make_trainer, tmp_path
):
    module = make_module()

    def crash(*args):
        if module.global_step == 3:
            raise RuntimeError("crash")

    module.on_train_batch_start = crash
    with pytest.raises(RuntimeError, match="crash"):
        make_trainer(logger=MetricsFile(tmp_path), limit_val_batches=0).fit(module, make_data())
    assert [row["step"] for row in rows(tmp_path)] == ["0", "1", "2"]


@pytest.mark.parametrize(
    "content",
    [
        b"step,loss\n1,0.1,0.2\n",
        b"step,loss\n1\n",
        b"loss\n0.5\n",
        b"step,loss\none,0.5\n",
        b"\xff\xfe\x00",
        b'step,loss\n1,"0.5\n',
    ],
)
def test_a_damaged_file_gets_a_sentence_and_stays_as_it_is(content, tmp_path):
    (tmp_path / "metrics.csv").write_bytes(content)
    with pytest.raises(RunFolderError, match=r"metrics.csv is damaged.*move it away"):
        MetricsFile(tmp_path, resume_step=3)
    assert (tmp_path / "metrics.csv").read_bytes() == content


def test_metrics_are_columns_by_steps_done(tmp_path):
    path = tmp_path / "metrics.csv"
    assert read_metrics(path) == {}
    path.write_text("epoch,step,a,b\n0,9,1.5,\n0,19,,2e-3\n1,29,-3,nan\n")
    found = read_metrics(path)
    assert found["a"] == [(10, 1.5), (30, -3)]
    assert found["b"] == [(20, 0.002), (30, pytest.approx(math.nan, nan_ok=True))]
    assert found["epoch"] == [(10, 0), (20, 0), (30, 1)]
