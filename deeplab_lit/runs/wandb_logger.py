"""Weights & Biases as something that a training can do without."""

import atexit
import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.loggers.logger import DummyLogger

from deeplab_lit.cli.screen import say


@contextmanager
def may_fail(logger: WandbLogger) -> Iterator[None]:
    """Whatever W&B raises in here is said, and stops nobody."""
    try:
        yield
    except Exception as error:  # any: its process, its server, its settings, its disk
        if not getattr(logger, "failed", False):
            logger.failed = True
            atexit.register(_part)
            say(
                "WARNING: W&B has failed and gets no more of this run; metrics.csv goes on "
                f"({type(error).__name__}: {' '.join(str(error).split())})"
            )


def _part() -> None:
    """What W&B does when a process ends, without a traceback where its own process is dead."""
    import wandb

    with suppress(Exception, SystemExit):
        wandb.teardown()


def _harmless(method: Callable) -> Callable:
    @functools.wraps(method)
    def attempt(self: "HarmlessWandb", *args: Any, **kwargs: Any) -> Any:
        if self.failed:
            return None
        with may_fail(self):
            return method(self, *args, **kwargs)
        return None

    return attempt


class HarmlessWandb(WandbLogger):
    """Lightning's WandbLogger, but the first failure is said and ends the logging to W&B only.

    Attributes:
        failed: nothing is handed to W&B any more.
        found: W&B had a run in this process before this logger, which the logger goes on with.
    """

    failed = False
    log_hyperparams = _harmless(WandbLogger.log_hyperparams)
    log_metrics = _harmless(WandbLogger.log_metrics)
    log_table = _harmless(WandbLogger.log_table)
    log_image = _harmless(WandbLogger.log_image)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        import wandb

        super().__init__(*args, **kwargs)
        self._wandb_init.pop("anonymous", None)  # W&B warns of it, and Lightning always gives it
        self.found = wandb.run is not None

    def finalize(self, status: str) -> None:
        """As the parent; ends W&B's run where the training has failed or was interrupted."""
        super().finalize(status)
        if status != "success":
            self.end(exit_code=1)

    @_harmless
    def end(self, exit_code: int = 0) -> None:
        """End W&B's run, so that the next one in this process has its own; not one it `found`."""
        import wandb

        if wandb.run is not None and not self.found:
            wandb.finish(exit_code)

    def place(self) -> str:
        """Where W&B has its run that is about to end: an address, or the folder of an offline one.

        Returns:
            Nothing where it has none of ours.
        """
        import wandb

        run = wandb.run
        if run is None or self.found or self.failed or run.disabled:
            return ""
        return run.sync_dir if run.offline else run.url or ""

    @property
    def experiment(self) -> Any:
        """W&B's run; after a failure something that takes every call and does nothing."""
        run = self._run()
        return DummyLogger().experiment if run is None else run

    @_harmless
    def _run(self) -> Any:
        return super().experiment
