"""Put into words, for the page of a run, what to know of its scores and what was run."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from deeplab_lit.cli.checks import SEEN
from deeplab_lit.cli.screen import scored
from deeplab_lit.crf.parameters import in_words
from deeplab_lit.runs.checkpoints import BEST
from deeplab_lit.text import plural, redacted_words, with_short_hashes
from deeplab_lit.types import Classes

LOWER = "it may score lower on new images"
# entries of results.json, where masks are scored → their titles
MASKS = {
    "mask_files": "Files",
    "mask_values": "Values of the masks",
    "mask_rule": "Rule of the maps",
    "void_as": "Void in the masks",
    "gt_prob": "Probability of a mask’s class, for the CRF",
}


@dataclass(frozen=True)
class About:
    """Facts of a run that stand in none of its files.

    Attributes:
        verb: the command.
        network: in words; empty where masks are scored.
        classes: names and colors.
        training: folder of the run that trained the network; None where masks are scored.
        step: optimizer steps that the scored weights have behind them; None: not known.
        typed: command line of the run.
        following: the command to type next, and its words; empty for none.
    """

    verb: Literal["fit", "validate"]
    network: str
    classes: Classes
    training: Path | None
    step: int | None
    typed: Sequence[str]
    following: Sequence[str]


def notes(about: About, results: Mapping[str, Any], trained: Mapping[str, Any]) -> list[str]:
    """Return what one must know of the scores before they are compared with others.

    Args:
        about: the run.
        results: its results.json.
        trained: results.json of the training; empty where it is not at hand.
    """
    scores = scores_of(about, results)
    sentences = []
    if scores["images"] < scores.get("images_in_split", scores["images"]):
        sentences.append(
            "Only a part of the split was scored (--trainer.limit_val_batches): these scores "
            "compare with no others."
        )
    if quoted := results.get("quoted"):
        sentences.append(f"Quoted of these weights, not measured here: {quoted}.")
    if splits := results.get(SEEN):
        sentences.append(
            f"The weights were trained on {with_short_hashes(', '.join(splits))}, which has images "
            "that are scored here: these scores say nothing about new images."
        )
    if number := results.get("validation_images_trained_on"):
        sentences.append(f"{plural(number, 'image')} scored here are trained on, too.")
    if results.get("validation_split_unlabeled") or results.get("validation_images_unlabeled"):
        sentences.append("Images scored here are trained on, too, without their labels.")
    if results.get("inference", {}).get("score_resized"):
        sentences.append("Images and masks were scored at another size than their own.")
    if number := results.get("images_without_mask"):
        sentences.append(f"{plural(number, 'image')} without a mask: void throughout.")
    void = scores.get("void_predicted", {})
    if void.get("pixels"):
        sentences.append(
            f"{100 * void['share']:.2f} % of the pixels scored are void in the masks "
            f"(--void_as {void['as']})."
        )
    if scores["miou"] is None:
        return [*sentences, "All pixels scored are void: there is no score, and none to choose by."]
    return sentences + _choice(about, results, trained)


def scores_of(about: About, results: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scores that the page shows: a training's best, or those of a validation."""
    return results["best" if about.verb == "fit" else "final"]


def subject_of(about: About, results: Mapping[str, Any]) -> str:
    """Return what was scored: a folder of masks, or a checkpoint."""
    if about.verb == "fit":
        return results["best_checkpoint"] or "a network of which no checkpoint was kept"
    return results.get("masks") or results["checkpoint"]


def _choice(about: About, results: Mapping[str, Any], trained: Mapping[str, Any]) -> list[str]:
    """Say by which images the weights were chosen; nothing where it was not by images scored."""
    monitor = trained.get("monitor", "val/miou")  # trainings before it was written had this one
    if about.verb == "fit":
        best = "These are the scores of the best of this training’s validations"
        if not monitor.startswith("val"):
            return [f"{best}, by {monitor}."]
        by = "" if monitor == "val/miou" else f", by {monitor}"
        return [f"{best}{by}. The network was chosen by these same images: {LOWER}."]
    if about.training is None or Path(subject_of(about, results)).name != BEST:
        return []
    if not monitor.startswith("val"):
        return [f"The checkpoint was chosen as the best of its training by {monitor}."]
    chosen_on = trained.get("scored_on")
    if chosen_on is None:  # the training is not at hand, or of an earlier version
        return [
            "The checkpoint is the best of its training by its score on the images that it was "
            f"validated on. If these are the images scored here, {LOWER}."
        ]
    if chosen_on == results["scored_on"]:
        return [f"The checkpoint was chosen as the best of its training by these images: {LOWER}."]
    return [f"The checkpoint was chosen as the best of its training by images of {chosen_on}."]


def training_in_words(trained: Mapping[str, Any], first: int) -> str:
    """Say how long the network was trained, and where the log of earlier steps is.

    Args:
        trained: results.json of the training; empty where it is not at hand.
        first: optimizer step from which on there are curves.
    """
    if not trained:
        return ""
    text = f"Trained for {plural(trained['steps'], 'optimizer step')} on {trained['device']}."
    if "checkpoint" in trained:
        text += f" It went on from {trained['checkpoint']}; the curves begin at step {first:,}."
    return text


def facts(about: About, results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what was run, on what and with what: titles and texts."""
    scores = scores_of(about, results)
    crf, seconds = scores.get("crf", {}), results["wall_seconds"]
    each = ""
    if about.verb == "validate":
        each = f"; {seconds / max(scores['images'], 1):.2f} s an image, all that was done included"
    versions = {"deeplab_lit": results["deeplab_lit"], **results["versions"]}
    named = {
        "Written": f"{datetime.now().astimezone():%Y-%m-%d %H:%M %z}",
        "Data": f"{results['scored_on']}, {scored(scores)}",
        ("Masks" if about.training is None else "Checkpoint"): subject_of(about, results),
        "Network": about.network,
        "Learnable parameters": _number(results.get("parameters")),
        "Optimizer steps": _number(about.step),
        "Went on from": results.get("checkpoint", "") if about.verb == "fit" else "",
        **_provenance(results.get("provenance", {})),
        "How images were seen": _settings(results.get("inference", {})),
        **{title: str(results[name]) for name, title in MASKS.items() if name in results},
        "CRF": in_words(crf),
        "Time of the CRF": _seconds(crf.get("seconds_per_image")),
        "Time": f"{seconds:,.1f} s{each}",
        "Hardware": f"{results['device']}; {plural(results['processes'], 'process')}",
        "Versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
        "Commit": _commit(results["git_commit"]),
        "Seed": str(results["seed"]),
    }
    return [(title, text) for title, text in named.items() if text]


def _provenance(provenance: Mapping[str, Any]) -> dict[str, str]:
    if not provenance:
        return {}
    digest, told = provenance["sha256"], provenance["about"]
    first = provenance["source"] or "random numbers"
    first += f" (SHA-256 {digest[:8]}…)" if digest else ""
    first += "" if provenance["init"] == "none" else f", first trained on: {provenance['init']}"
    first += f"; {told}" if told else ""
    return {
        "Weights began as": first,
        "Trained on": with_short_hashes(", ".join(provenance["trained_on"])),
        "Without labels, on": with_short_hashes(", ".join(provenance["unlabeled_on"])),
    }


def _settings(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())


def _number(value: int | None) -> str:
    return "" if value is None else f"{value:,}"


def _seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} s an image (median)"


def _commit(commit: str | None) -> str:
    if commit is None:
        return "unknown: the package lies in no repository"
    return commit.removesuffix("+") + (", and uncommitted changes" if commit.endswith("+") else "")


def command_of(verb: str, words: Sequence[str]) -> str:
    """Return a command line to be typed, without secrets, in a line for each option."""
    lines = [f"python -m deeplab_lit.{verb}"]
    for word in redacted_words(words):
        if word.startswith("-") or len(lines) == 1:
            lines.append(shlex.quote(word))
        else:
            lines[-1] += f" {shlex.quote(word)}"
    return " \\\n    ".join(lines)
