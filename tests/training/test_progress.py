import inspect
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from lightning.pytorch import Callback

from deeplab_lit.runs.csv_logger import MetricsFile
from deeplab_lit.training import progress
from deeplab_lit.training.progress import StepProgress, Throughput, peak_resident_memory

KEY = "train/images_per_second"


class Clock(Callback):
    """Time passes in batches, in reading data and in validation only."""

    def __init__(self, *, batch=0.0, validation=0.0, setup=0.0):
        self.now, self.batch, self.validation, self.setup_time = 0.0, batch, validation, setup

    def setup(self, *args, **kwargs):
        self.now += self.setup_time

    def on_train_batch_start(self, *args):
        self.now += self.batch

    def on_validation_batch_start(self, *args):
        self.now += self.validation


@pytest.fixture
def rates(monkeypatch, make_module, make_data, make_trainer, tmp_path):
    """Images a second by step, under a clock."""

    def run(clock, batch_size=2, **kwargs):
        monkeypatch.setattr(progress, "time", SimpleNamespace(perf_counter=lambda: clock.now))
        log = MetricsFile(tmp_path)
        trainer = make_trainer(callbacks=[Throughput(), clock], logger=log, **kwargs)
        trainer.fit(make_module(), make_data(batch_size=batch_size))
        return {step: float(row[KEY]) for step, row in log.rows.items() if KEY in row}

    return run


def test_images_a_second_are_images_by_seconds(rates):
    clock = Clock(batch=0.5, setup=100)
    assert rates(clock, limit_val_batches=0) == dict.fromkeys(range(4), 4.0)


def test_the_time_of_validation_is_left_out(rates):
    found = rates(Clock(batch=0.5, validation=1000), val_check_interval=2)
    assert found == dict.fromkeys(range(4), 4.0)


def test_the_rate_is_of_all_batches_since_the_last_one(rates):
    clock = Clock(batch=0.5)
    clock.on_train_batch_start = lambda trainer, *args: setattr(
        clock, "now", clock.now + (3 if trainer.global_step == 0 else 1)
    )
    found = rates(clock, log_every_n_steps=2, limit_val_batches=0)
    assert found == {1: pytest.approx(4 / (3 + 1)), 3: pytest.approx(4 / 2)}


def test_accumulated_batches_all_count(rates):
    found = rates(
        Clock(batch=0.5),
        accumulate_grad_batches=2,
        max_steps=2,
        log_every_n_steps=2,
        limit_val_batches=0,
    )
    assert found == {1: 4.0}  # every two optimizer steps, four batches


def test_it_is_positive_by_the_real_clock(make_module, make_data, make_trainer, tmp_path):
    log = MetricsFile(tmp_path)
    make_trainer(callbacks=[Throughput()], logger=log).fit(make_module(), make_data())
    assert all(0 < float(row[KEY]) < 1e5 for row in log.rows.values() if KEY in row)
    assert KEY in log.rows[0]


def test_no_logger_is_needed(make_module, make_data, make_trainer):
    trainer = make_trainer(callbacks=[Throughput()], max_steps=2)
    trainer.fit(make_module(), make_data())
    assert trainer.global_step == 2


def test_memory_is_logged_on_a_cpu_too(make_module, make_data, make_trainer, tmp_path):
    log = MetricsFile(tmp_path)
    make_trainer(callbacks=[Throughput()], logger=log).fit(make_module(), make_data())
    values = [float(row["train/resident_memory_gib"]) for _, row in sorted(log.rows.items())]
    assert len(values) == 4
    assert values == sorted(values)
    assert 0.1 < values[-1] < 100  # PyTorch alone takes more, no test as much
    assert "train/gpu_memory_gib" not in log.rows[0]


PEAKS = f"""
import re
import sys
from pathlib import Path
import numpy as np

{inspect.getsource(peak_resident_memory)}
def missing(*args):
    raise FileNotFoundError

print(peak_resident_memory())
held = np.ones(2**25)
print(peak_resident_memory())
del held
print(peak_resident_memory())
Path.read_text = missing
print(peak_resident_memory())
"""  # of the module it would import PyTorch, which takes seconds


@pytest.mark.skipif(sys.platform != "linux", reason="without /proc a child's peak is its parent's")
def test_memory_is_the_peak_of_the_process_itself_in_bytes():
    parent = np.ones(2**27)
    child = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, text=True)
    before, holding, after, without_proc = map(int, child.stdout.split())
    assert 2**23 < before < parent.nbytes  # whoever started it holds more
    assert holding - before == pytest.approx(8 * 2**25, rel=0.2)
    assert after == pytest.approx(holding, rel=0.01)
    assert 0.99 * holding < without_proc < 100 * 2**30


class Watch(Callback):
    """What the bar says after each batch."""

    def __init__(self, bar):
        self.bar, self.seen = bar, []

    def on_train_batch_end(self, trainer, *args):
        self.seen.append((self.bar.training.n, trainer.global_step))


@pytest.fixture
def fit(make_module, make_data, make_trainer):
    def run(bar, *callbacks, ckpt_path=None, **kwargs):
        trainer = make_trainer(
            enable_progress_bar=True, callbacks=[bar, *callbacks], limit_val_batches=1, **kwargs
        )
        trainer.fit(make_module(), make_data(), ckpt_path=ckpt_path, weights_only=True)
        return trainer

    return run


def test_the_bar_counts_optimizer_steps_and_ends_full(fit):
    bar = StepProgress()
    watch = Watch(bar)
    fit(bar, watch, max_steps=3, accumulate_grad_batches=2)
    assert [shown for shown, _ in watch.seen] == [0, 1, 1, 2, 2, 3]
    assert all(shown == done for shown, done in watch.seen)
    assert bar.training.n == bar.training.total == 3


def test_the_bar_of_a_resumed_run_goes_on(fit, tmp_path):
    fit(StepProgress(), max_steps=2).save_checkpoint(tmp_path / "two.ckpt")
    bar = StepProgress()
    watch = Watch(bar)
    fit(bar, watch, max_steps=5, ckpt_path=tmp_path / "two.ckpt")
    assert bar.training.initial == 2
    assert watch.seen == [(3, 3), (4, 4), (5, 5)]


def test_loss_steps_and_miou_are_shown(fit, capsys):
    fit(StepProgress(), max_steps=2, val_check_interval=1, log_every_n_steps=1)
    out, err = capsys.readouterr()
    assert not out
    last = err.splitlines()[-1].rpartition("\r")[2]
    assert "2/2" in last
    assert "loss=" in last
    assert "mIoU=" in last


def test_nothing_is_printed_when_disabled(fit, capsys):
    bar = StepProgress()
    bar.disable()
    trainer = fit(bar, max_steps=2)
    bar.print("a line")
    out, err = capsys.readouterr()
    assert trainer.global_step == 2
    assert "training" not in out + err
    assert "a line" not in out + err
    bar.enable()
    bar.print("a", "line", sep="-")
    assert capsys.readouterr().err == "a-line\n"


def test_validation_alone_has_a_bar_of_its_images(make_module, make_data, make_trainer, capsys):
    bar = StepProgress()
    trainer = make_trainer(enable_progress_bar=True, callbacks=[bar])
    trainer.validate(make_module(), make_data(), verbose=False)
    assert bar.validation.total == 5
    assert bar.training.disable
    assert "validating" in capsys.readouterr().err


def test_a_crash_closes_the_bars(fit, make_module):
    bar = StepProgress()

    class Crash(Callback):
        def on_validation_batch_end(self, *args):
            raise RuntimeError("crash")

    with pytest.raises(RuntimeError, match="crash"):
        fit(bar, Crash(), val_check_interval=1)
    assert bar.training.disable  # tqdm's own sign of a closed bar
    assert bar.validation.disable
