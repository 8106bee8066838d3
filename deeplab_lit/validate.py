"""python -m deeplab_lit.validate: score a checkpoint; see --help."""

from pathlib import Path

import torch
from jsonargparse import Namespace
from lightning.pytorch.cli import ArgsType
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from deeplab_lit.cli.checks import check_classes, check_unseen, refuse_without_data
from deeplab_lit.cli.defaults import flags, names_data, value_of
from deeplab_lit.cli.lightning_cli import DeepLabCLI, run
from deeplab_lit.cli.screen import after_validate, say, scored
from deeplab_lit.data import Cityscapes
from deeplab_lit.network.weights.load import WeightsError
from deeplab_lit.runs.loggers import end_wandb
from deeplab_lit.runs.provenance import Provenance
from deeplab_lit.runs.results_folder import open_results_folder
from deeplab_lit.scoring.cityscapes import Instances
from deeplab_lit.scoring.probability_cache import what_decides
from deeplab_lit.scoring.trimap import BandCurve
from deeplab_lit.text import plural
from deeplab_lit.yaml_files import read_options

NO_CHECKPOINT = (
    "validate needs --ckpt_path FILE, a checkpoint that fit wrote, or --ckpt_path last, the best "
    "of the newest run"
)


class ValidateCLI(DeepLabCLI):
    """Score a checkpoint."""

    verb = "validate"
    help = {
        "usage": "python -m deeplab_lit.validate --ckpt_path FILE [options]",
        "description": "Score a checkpoint, by default on what it was trained with. "
        "--ckpt_path last: the best of the newest run.",
    }

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """The verb, and the arguments of Trainer.validate that the command line leaves out."""
        return {"validate": {"model", "dataloaders", "datamodule", "weights_only"}}

    def begin_with(self, argv: list[str]) -> Path | None:
        """As the parent; refuse where neither a checkpoint nor its data is known."""
        if names_data(argv):
            return None
        if not value_of(argv, "ckpt_path"):
            raise WeightsError(NO_CHECKPOINT)
        config = super().begin_with(argv)
        if config is None:
            refuse_without_data(value_of(argv, "ckpt_path"))
        crf = read_options(config).get("crf")
        typed = any(flag.startswith("--crf") for flag in flags(argv))
        if isinstance(crf, dict) and crf.get("enabled") is True and not typed:
            say("Note: the training scored with the CRF too; here --crf puts it in.")
        return config

    def find_folder(self, options: Namespace, argv: list[str]) -> Path:
        """As the parent; a `run` in the configuration is the training's name."""
        if "--run" not in flags(argv):
            options.run = None
        return super().find_folder(options, argv)

    def before_instantiate_classes(self) -> None:
        """As the parent; refuse to score a network that nobody trained."""
        if self.checkpoint is None:
            raise WeightsError(NO_CHECKPOINT)
        super().before_instantiate_classes()

    def instances(self) -> Instances | None:
        """As the parent."""
        if not isinstance(self.datamodule, Cityscapes):
            return None
        return Instances(*self.datamodule.instances(self.datamodule.val_split))

    def before_validate(self) -> None:
        """Everything that can be refused before the first image."""
        options, data = self.config.validate, self.datamodule
        check_classes(self.checkpoint["hyper_parameters"]["classes"], options.ckpt_path, data)
        provenance = Provenance.from_checkpoint(self.checkpoint)
        self.record.about["provenance"] = provenance.as_dict()
        allowed = self.allow_seen_split
        self.record_seen(check_unseen(data, provenance, options.ckpt_path, allowed=allowed))
        for suspicion in data.preflight("validate"):
            say(f"WARNING: {suspicion}")
        if self.model.evaluation.cache_dir is not None:
            self._claim_cache(Path(self.model.evaluation.cache_dir))
        self.claim(bytes_needed=10_000_000)
        image, _ = data.split(data.val_split).read(0)
        evaluation, net = self.model.evaluation, self.model.net
        self.record.about["inference"] = evaluation.settings(net)
        say(f"Network: {evaluation.in_words(net, image.shape[:2])}")

    @rank_zero_only
    def _claim_cache(self, folder: Path) -> None:
        options = self.config.validate
        settings = what_decides(options.ckpt_path, options.data, self.datamodule.val_split)
        settings |= self.model.evaluation.settings(self.model.net)
        settings["precision"] = str(self.trainer.precision)
        open_results_folder(folder, settings)

    def after_validate(self) -> None:
        """The table, and where it is written."""
        wandb = end_wandb(self.trainer.loggers)
        final = self.record.final
        cached = self._cached()
        if final is None:  # the strategy's spawned processes have scored, and one has written it
            say(f"Results     {self.folder / 'results.json'}")
            return
        if self.trainer.is_global_zero:
            scales = list(self.model.evaluation.scales or self.model.net.scales)
            name = f"{type(self.datamodule).__name__} {self.datamodule.val_split}"
            data = f"{name}, {scored(final)}, scales {scales}"
            curves = next(
                (c.curves for c in self.trainer.callbacks if isinstance(c, BandCurve)), {}
            )
            what = f"{self.described()} on {data}"
            following = [] if "crf" in final or "--run" in flags(self.typed) else self.typed
            following = [*following, "--crf"] if following else []
            if cached:
                say(f"Cached      {cached}")
            after_validate(final, what, self.folder, curves, wandb=wandb, following=following)

    def _cached(self) -> str:
        """How much came from --eval.cache_dir, in words, on all processes together."""
        evaluation, strategy = self.model.evaluation, self.trainer.strategy
        if evaluation.cache_dir is None:
            return ""
        numbers = torch.tensor(evaluation.from_cache(), device=strategy.root_device)
        reused, replaced = strategy.reduce(numbers, reduce_op="sum").tolist()
        said = f"the probabilities of {plural(reused, 'image')} came from {evaluation.cache_dir}"
        if replaced:
            said += f"; {replaced} kept there were damaged or of other pixels, and are made anew"
        return said


def main(args: ArgsType = None) -> ValidateCLI:
    """Score a checkpoint; as `deeplab_lit.cli.lightning_cli.run`."""
    return run(ValidateCLI, args)


if __name__ == "__main__":
    main()
