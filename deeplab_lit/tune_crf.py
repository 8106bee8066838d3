"""python -m deeplab_lit.tune_crf: search the CRF's parameters for a checkpoint; see --help.

The network runs once over some labeled images; its probabilities are kept in OUT/probabilities as
16-bit floats (see scoring/probability_cache.py). Then the paper's grid is searched on them, on all
cores, and the best is compared with the released parameters and with the network alone, with
intervals over the images. Started again, it goes on where it was stopped. Maps that lie in files
need no network: validate --masks DIR --crf --crf.bi_w 5 scores them with one setting.
"""

import math
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from jsonargparse import Namespace
from jsonargparse.typing import PositiveInt

import deeplab_lit
from deeplab_lit.ablate.bootstrap import interval, miou
from deeplab_lit.atomic import atomic_write
from deeplab_lit.cli.checks import check_classes
from deeplab_lit.cli.defaults import implied_config, with_checkpoint_named
from deeplab_lit.cli.other_views import tell_other_views
from deeplab_lit.cli.parser import Parser, parse, words_of
from deeplab_lit.crf import DenseCRF
from deeplab_lit.crf.parameters import PRESETS
from deeplab_lit.crf.pool import cores
from deeplab_lit.crf.search import (
    FEW,
    Point,
    at_edge,
    read_scores,
    search,
    verdict,
    write_scores,
)
from deeplab_lit.data import DataError, SegmentationData
from deeplab_lit.data.split import Split
from deeplab_lit.errors import lasting_screen, plain_errors, refused_arguments
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.inference import DEVICE_HELP, Inference, device_of
from deeplab_lit.pictures.charts import heat_maps
from deeplab_lit.progress_bar import progress_bar
from deeplab_lit.runs.folder import CHECKPOINT_HELP, named_checkpoint, open_results_folder
from deeplab_lit.runs.trained_on import read_run
from deeplab_lit.scoring.per_image import count
from deeplab_lit.scoring.probability_cache import CachedProbabilities, cache_key
from deeplab_lit.terminal import command
from deeplab_lit.text import plural, say

EXAMPLES = ["python -m deeplab_lit.tune_crf --ckpt_path last --out crf_search"]


def fill(cache: CachedProbabilities, net: DeepLabV2, split: Split, indices: Sequence[int]) -> None:
    """Let the network see the images that have no probabilities yet."""
    for index in progress_bar(indices, desc="network", unit=" images"):
        image, _ = split.read(index)
        if cache.read(split.ids[index], image) is not None:
            cache.reused += 1
            continue
        pixels = torch.tensor(image, device=net.preprocess.mean.device)
        with torch.inference_mode():
            logits = net(pixels.permute(2, 0, 1)[None])[0]
        cache.write(split.ids[index], image, logits.softmax(0))


def content_sha256(split: Split, indices: Sequence[int]) -> str:
    """Return a fingerprint of images and masks, so that scores of other images are not reused.

    Args:
        split: where they are.
        indices: which of them.
    """
    digest = sha256()
    for index in indices:
        for array in split.read(index):
            digest.update(f"{array.shape}".encode() + array.tobytes())
    return digest.hexdigest()


class Score:
    """Score CRF parameters on the cached images.

    Args:
        split: images and masks.
        indices: which of them.
        cache: of their probabilities.
        num_classes: C.
        fixed: parameters that are not searched, and the backend.
        device: of the CRF, where its backend can use it.
    """

    def __init__(
        self,
        split: Split,
        indices: Sequence[int],
        cache: CachedProbabilities,
        num_classes: int,
        fixed: dict[str, Any],
        device: torch.device,
    ) -> None:
        self.split, self.indices, self.cache = split, indices, cache
        self.num_classes, self.fixed = num_classes, fixed
        on_gpu = DenseCRF(**fixed).stays_on(device)
        self.device = device if on_gpu else torch.device("cpu")
        self.workers = 2 if on_gpu else cores()  # on a GPU the second reads what is next

    def __call__(self, point: Point) -> float:
        """Return the mIoU of a setting, 0…1."""
        return float(miou(self.counts(point._asdict() | self.fixed).sum(0)))

    def counts(self, parameters: dict[str, Any] | None) -> np.ndarray:
        """Return counts (N,3,C) of the images after the CRF; of the network alone with None."""
        crf = DenseCRF(**parameters, threads=1) if parameters else None
        with ThreadPoolExecutor(self.workers, "crf", torch.set_num_threads, (1,)) as pool:
            return np.stack(list(pool.map(lambda index: self._count(crf, index), self.indices)))

    def _count(self, crf: DenseCRF | None, index: int) -> np.ndarray:
        image, mask = self.split.read(index)
        scores = self.cache.read(self.split.ids[index], image)
        if scores is None:
            raise DataError(
                f"{self.cache.path(self.split.ids[index])}: it, or its image, has changed since "
                "the search began. Start again"
            )
        if crf is not None:
            scores = crf(image, scores.to(self.device))
        return count(scores.argmax(0).cpu(), torch.from_numpy(mask), self.num_classes)


def build_parser() -> Parser:
    """Return the parser of the command."""
    parser = Parser(prog="python -m deeplab_lit.tune_crf", description=__doc__, examples=EXAMPLES)
    parser.add_argument("--ckpt_path", type=str, required=True, help=CHECKPOINT_HELP)
    parser.add_argument("--out", type=str, required=True, help="Folder for the results.")
    parser.add_subclass_arguments(SegmentationData, "data", required=False)
    parser.add_argument(
        "--split",
        type=str | None,
        default=None,
        help="Labeled images to search on. Default: those that the network was trained on, since "
        "parameters chosen on val make val scores flattering.",
    )
    parser.add_argument(
        "--num_images", type=PositiveInt, default=100, help="Spread over the split."
    )
    parser.add_argument("--pos_w", type=float, default=3.0, help="w2, not searched.")
    parser.add_argument("--pos_xy_std", type=float, default=3.0, help="σγ, not searched.")
    parser.add_argument("--iterations", type=int, default=10, help="Mean-field steps.")
    parser.add_argument("--backend", type=str, default="auto", help="See DenseCRF.")
    parser.add_argument("--device", type=str, default="auto", help=DEVICE_HELP)
    return parser


def main(args: Sequence[str] | None = None) -> None:
    """Run the command."""
    with plain_errors(), lasting_screen():
        argv = with_checkpoint_named(list(sys.argv[1:] if args is None else args))
        options, data_section = _parse(argv)
        score, net, title = _score(options, data_section)
        out = Path(options.out)
        alone = score.counts(None)
        before = float(miou(alone.sum(0)))
        if math.isnan(before):
            raise DataError(
                f"{title}: all of their pixels are void, so nothing can be scored on them"
            )
        reused = score.cache.reused
        kept = f" (the probabilities of {reused} were kept)" if reused else ""
        say(f"{title}{kept}, mIoU without the CRF {100 * before:.2f} %")
        scores = _search(score, out / "scores.csv")
        best = max(scores, key=scores.__getitem__)
        preset = "vgg16" if net.backbone_name == "vgg16" else "resnet101"
        candidates = {
            "the best of the grid": best._asdict() | score.fixed,
            f"released ({preset})": score.fixed | PRESETS[preset],
        }
        counts = {what: score.counts(parameters) for what, parameters in candidates.items()}
        chosen = max(counts, key=lambda what: float(miou(counts[what].sum(0))))
        file = out / "best.yaml"
        with atomic_write(file) as place:
            place.write_text(yaml.safe_dump(candidates[chosen], sort_keys=False))
        heat_maps({(*point,): v for point, v in scores.items()}, Point._fields, out / "scores.png")
        _print_ranking(scores, before)
        _compare(counts, alone)
        for name in at_edge(best):
            print(f"{name} is best at the end of the grid: values beyond it may be better still")
        say(f"\nBest        {file}: {chosen}", f"All         {out / 'scores.csv'}, scores.png")
        words = ["--ckpt_path", options.ckpt_path, "--crf", str(file), *words_of(argv, ["--data"])]
        say(f"Next        {command('deeplab_lit.validate', *words)}")


def _parse(argv: Sequence[str]) -> tuple[Namespace, Namespace]:
    """Return the options, data instantiated, and the section of the data as typed.

    The data of the checkpoint's run are the default.
    """
    parser = build_parser()
    run = implied_config("validate", argv)
    if run is not None:
        parser.set_defaults(read_run(run, {"data": None}))
    typed = parse(parser, argv)
    if typed.data is None:
        raise DataError("--data is missing: name the data that the checkpoint was trained on")
    with refused_arguments():
        return parser.instantiate(typed), typed.data


def _score(options: Namespace, data_section: Namespace) -> tuple[Score, DeepLabV2, str]:
    """Return the score to maximize, the network, and the images in words.

    Everything that can be refused is refused first; then the network sees the images.
    """
    data = options.data
    name = options.split or data.train_split
    split, title = data.labeled(name), name
    if name == data.train_split:
        split, title = data.selected(split), data.training_name()
    number = min(options.num_images, len(split.ids))
    indices = [i * len(split.ids) // number for i in range(number)]
    path = named_checkpoint(options.ckpt_path)
    net = deeplab_lit.load(path)
    check_classes(net.classes, path, data)
    fixed = {key: getattr(options, key) for key in ("pos_w", "pos_xy_std", "iterations", "backend")}
    tell_other_views(path, vars(Inference()) | {"score_resized": False})
    DenseCRF(**fixed)  # refuses wrong values before anything is written
    device = device_of(options.device)
    settings = cache_key(path, data_section, title) | {"images": number, **fixed}
    settings |= {"images_and_masks": content_sha256(split, indices)}
    open_results_folder(Path(options.out), settings)
    if name == data.val_split:
        say(f"WARNING: searching on {name}, so scores on {name} will be flattering")
    cache = CachedProbabilities(Path(options.out) / "probabilities", len(data.classes))
    fill(cache, net.to(device), split, indices)
    score = Score(split, indices, cache, len(data.classes), fixed, device)
    return score, net, f"{plural(number, 'image')} of {title}"


def _print_ranking(scores: dict[Point, float], before: float) -> None:
    """Print the ten best settings beside the mIoU of the network alone."""
    ranked = sorted(scores.items(), key=lambda item: -item[1])[:10]
    print("\n  mIoU    gain     w1     σα     σβ")
    for point, value in ranked:
        gain = 100 * (value - before)
        print(f"  {100 * value:5.2f}  {gain:+5.2f}  " + "  ".join(f"{v:5.4g}" for v in point))


def _compare(counts: dict[str, np.ndarray], alone: np.ndarray) -> None:
    """Print what settings gain over the network alone, and how sure that is.

    Args:
        counts: the setting in words → counts (N,3,C) after the CRF; the first was chosen on them.
        alone: counts (N,3,C) of the network alone.
    """
    number = len(alone)
    print(f"\nGain over the network alone, 95 % interval over {plural(number, 'image')}:")
    verdicts = []
    for what, after in counts.items():
        gain = float(miou(after.sum(0)) - miou(alone.sum(0)))
        low, high = interval([after], [alone])
        print(f"  {what:22} {100 * gain:+6.2f}  ({100 * low:+.2f} … {100 * high:+.2f})")
        verdicts.append(verdict(what, low, high, number))
    print("\n".join(verdicts))
    print("The best of the grid was chosen on these images: on others it gains less, as a rule.")
    if number < FEW:
        print(f"{plural(number, 'image')}: few for a choice; --num_images and --split give more.")


def _search(score: Score, path: Path) -> dict[Point, float]:
    """Return setting → mIoU of the whole search; each is written at once, to go on from."""
    known = read_scores(path)
    scores: dict[Point, float] = {}
    progress = progress_bar(desc="searching", unit=" settings")
    for point, value, left in search(score, known):
        scores[point] = value
        if point not in known:
            known[point] = value
            write_scores(known, path)
        progress.total = len(scores) + left
        progress.set_postfix(best=f"{max(scores.values()):.4f}", refresh=False)
        progress.update()
    progress.close()
    return scores


if __name__ == "__main__":
    main()
