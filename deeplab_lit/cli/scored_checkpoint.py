"""Read the network that `validate --ckpt_path FILE` scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jsonargparse import Namespace
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from deeplab_lit.cli.checks import check_network, check_unseen, classes_of_scores
from deeplab_lit.cli.defaults import names_data
from deeplab_lit.cli.other_views import tell_other_views
from deeplab_lit.cli.parser import configs, flags, read_config
from deeplab_lit.cli.run import Run
from deeplab_lit.cli.screen import tell_precision
from deeplab_lit.data import SegmentationData
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.weights.formats import translate
from deeplab_lit.network.weights.load import load_strictly, without_aux_head
from deeplab_lit.network.weights.published import Quoted
from deeplab_lit.runs.conversion import read_trained
from deeplab_lit.runs.folder import open_results_folder
from deeplab_lit.runs.provenance import Provenance, quoted_of
from deeplab_lit.scoring.evaluation import SCORED_RESIZED, ScoredNetwork
from deeplab_lit.scoring.observer import Observer
from deeplab_lit.scoring.probability_cache import cache_key
from deeplab_lit.scoring.subsets import choose_subsets, lacked_by
from deeplab_lit.text import plural, say


@dataclass(frozen=True)
class ScoredCheckpoint:
    """The network of a checkpoint, with what is said of it.

    Attributes:
        module: scores it.
        path: of the checkpoint.
        name: of it for people: the path, or that of published weights.
        step: of its optimizer.
        provenance: of its weights.
        settings: of its training, by which dashboards group scores.
        quoted: a published score of it; None: of none.
    """

    module: ScoredNetwork
    path: str
    name: str
    step: int
    provenance: Provenance
    settings: dict[str, Any]
    quoted: Quoted | None = None

    @property
    def training(self) -> Path:
        """Return the folder of the run that wrote it, if it lies where it was written."""
        return Path(self.path).expanduser().parent.parent

    @property
    def network(self) -> str:
        """Return the network in words."""
        return self.module.net.in_words()

    @property
    def observers(self) -> list[Observer]:
        """Return what looks at the images beside what every validation has."""
        return []

    def about(self) -> dict[str, Any]:
        """Return entries of results.json."""
        return {"checkpoint": self.path, "provenance": self.provenance.as_dict()}

    def check_data(self, run: Run) -> None:
        """Refuse images that were trained on, unless that is allowed.

        Raises:
            WeightsError: there are some.
        """
        allowed = run.options.allow_seen_split
        data = run.datamodule.val
        run.record.add(**check_unseen(data, self.provenance, self.name, allowed=allowed))

    def prepare(self, run: Run) -> None:
        """Open the cache, where there is one.

        Raises:
            RunFolderError: it is of something else.
        """
        evaluation = self.module.evaluation
        if evaluation.cache_dir is not None:
            settings = cache_key(self.path, run.options.data, run.datamodule.val.val_split)
            settings |= evaluation.settings(self.module.net)
            settings |= {"precision": str(run.trainer.precision)}
            rank_zero_only(open_results_folder)(Path(evaluation.cache_dir), settings)

    def introduce(self, run: Run) -> None:
        """Say what the network was trained on, how it sees images, what is slow.

        Raises:
            UserError: torch does not compute in the run's precision on this processor.
        """
        tell_precision(run.trainer, trains=False)
        net, evaluation = self.module.net, self.module.evaluation
        image = run.datamodule.validation().image(0)
        run.record.add(inference=evaluation.settings(net))
        if quoted := self._quoted_of(run.datamodule.val):
            run.record.add(quoted=quoted)
        if trained_on := self.provenance.in_words():
            say(f"Trained on {trained_on}")
        say(f"Network     {evaluation.in_words(net, image.shape[:2])}")
        if evaluation.score_resized:
            say(SCORED_RESIZED)

    def title(self) -> str:
        """Return what was scored, for the title of the table."""
        return f"{self.name} (step {self.step})"

    def how(self) -> str:
        """Return how it was scored, for the title of the table."""
        return self.module.evaluation.title(self.module.net)

    def _quoted_of(self, data: SegmentationData) -> str:
        """Return what is quoted of it on the validation split; empty for nothing."""
        quoted = self.quoted
        if quoted is None or quoted.split != data.label(data.val_split):
            return ""
        return f"mIoU on all of {quoted.in_words()}, without the CRF"

    def conclude(self, run: Run) -> None:
        """Say what is quoted of it on these images, and, of all processes, what was cached."""
        evaluation, strategy = self.module.evaluation, run.trainer.strategy
        if quoted := self._quoted_of(run.datamodule.val):
            say(f"Quoted      {quoted}")
        if evaluation.cache_dir is None:
            return
        numbers = torch.tensor(evaluation.from_cache(), device=strategy.root_device)
        reused, replaced = strategy.reduce(numbers, reduce_op="sum").tolist()
        sentence = f"the probabilities of {plural(reused, 'image')} came from "
        sentence += evaluation.cache_dir
        if replaced:
            sentence += (
                f"; {replaced} kept there were damaged or of other pixels, and are made anew"
            )
        say(f"Cached      {sentence}")


def read_to_score(path: str, argv: Sequence[str]) -> dict[str, Any]:
    """Return the content of a checkpoint, or a file of another project as one.

    Args:
        path: of the file.
        argv: `validate`'s command line, of `command_line`.

    Raises:
        WeightsError: it cannot be read, or a configuration is of another network.
    """
    checkpoint = read_trained(path)
    typed = {name: read_config(name) for name in configs(argv)}
    check_network(typed, checkpoint["hyper_parameters"])
    return checkpoint


def checkpoint_to_score(
    checkpoint: dict[str, Any], path: str, built: Namespace, argv: Sequence[str]
) -> ScoredCheckpoint:
    """Return the network of a checkpoint, ready to be scored on data.

    Args:
        checkpoint: its content.
        path: of the file.
        built: options of `validate`, their classes instantiated.
        argv: its command line, of `command_line`.

    Raises:
        UserError: it does not fit the data, or is damaged.
    """
    classes = classes_of_scores(checkpoint["hyper_parameters"]["classes"], path, built.data)
    source = without_aux_head(translate(checkpoint))
    net = DeepLabV2(len(classes), **source.network)  # whatever module has trained it
    load_strictly(net, source.state, path)
    provenance = Provenance.from_checkpoint(checkpoint)
    if names_data("validate", argv):  # so that the training's configuration is not followed
        tell_other_views(path, vars(built.eval))
    if lists := sorted(flags(argv) & {"--data.ids", "--data.all_but"}):
        say(
            f"Note: {lists[0]} selects images to train on; all of {built.data.val_split} are scored"
        )
    lacked = lacked_by(provenance.trained_on)
    subsets = choose_subsets(built.data, classes, built.eval.subsets, lacked)
    settings = checkpoint.get("hyper_parameters", {}).items()
    return ScoredCheckpoint(
        ScoredNetwork(net, classes, built.eval, subsets),
        path,
        built.ckpt_path,
        checkpoint["global_step"],
        provenance,
        {"model": {name: value for name, value in settings if name != "classes"}},
        quoted_of(provenance, source, checkpoint["global_step"]),
    )
