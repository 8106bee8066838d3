import pytest
from lightning.pytorch import Callback

from deeplab_lit.training.progress import StepProgress


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
