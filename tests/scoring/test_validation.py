import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint

from deeplab_lit import fit, validate
from deeplab_lit.crf import DenseCRF
from deeplab_lit.errors import UserError
from deeplab_lit.runs.checkpoints import kept_by
from deeplab_lit.runs.record import RunRecord
from deeplab_lit.scoring.evaluation import ScoredNetwork
from deeplab_lit.scoring.observer import Observer, ObserverError
from deeplab_lit.scoring.per_image import gathered
from deeplab_lit.scoring.validation import Validation

CRF = DenseCRF(iterations=1, backend="torch", threads=1)


@pytest.fixture(scope="module")
def one_by_one(validated):
    """The slow way: (image, mask, labels, labels after the CRF) of one image after the other."""
    net, split, images = validated.module.net.eval(), validated.data.validation(), {}
    crf = DenseCRF(bi_xy_std=20, bi_rgb_std=20, iterations=3, backend="torch")
    for index, id in enumerate(split.ids):
        image, mask = split.read(index)
        with torch.no_grad():
            logits = net(torch.from_numpy(image).permute(2, 0, 1)[None])
        labels = logits[0].argmax(0).numpy()
        images[id] = image, mask, labels, crf(image, logits[0].softmax(0).numpy()).argmax(0)
    return images


def confusion(pairs):
    """Pixels by true and predicted class, counted by NumPy."""
    counts = np.zeros((7, 7), np.int64)
    for mask, labels in pairs:
        np.add.at(counts, (mask[mask != 255], labels[mask != 255]), 1)
    return counts


def test_each_image_is_shown_once_and_complete(validated, one_by_one):
    images = validated.witness.images
    assert sorted(image.id for image in images) == sorted(one_by_one)
    for image in images:
        expected = one_by_one[image.id]
        for tensor, array in zip(
            (image.image, image.mask, image.labels, image.refined), expected, strict=True
        ):
            assert (tensor.dtype, tensor.device.type) == (torch.uint8, "cpu")
            np.testing.assert_array_equal(tensor, array)
        assert list(one_by_one)[image.index] == image.id  # in whatever order they come


def test_scores_are_those_of_one_image_after_the_other(validated, one_by_one):
    scores, refined = validated.witness.told
    before = confusion((mask, labels) for _, mask, labels, _ in one_by_one.values())
    after = confusion((mask, labels) for _, mask, _, labels in one_by_one.values())
    assert (before != after).any()
    np.testing.assert_array_equal(scores.confusion, before)
    np.testing.assert_array_equal(refined.confusion, after)
    assert validated.module.scores.confusion.equal(scores.confusion)
    assert validated.logged["val/miou"] == pytest.approx(scores.miou)
    assert validated.logged["val_crf/miou"] == pytest.approx(refined.miou)
    values = validated.results.as_dict()
    assert (values["images"], values["images_in_split"]) == (9, 9)
    assert values["miou"] == scores.miou
    assert values["crf"]["miou"] == refined.miou
    assert (values["crf"]["backend"], values["crf"]["iterations"]) == ("torch", 3)
    assert values["crf"]["seconds_per_image"] > 0


def test_the_batch_of_a_validation_is_left_as_it_was(make_module, make_data, make_trainer):
    module, keys = make_module(), []
    module.on_validation_batch_end = lambda outputs, batch, index: keys.append(set(batch))
    trainer = make_trainer(callbacks=[Validation(crf=CRF)], limit_val_batches=1)
    trainer.validate(module, make_data(), verbose=False)
    assert keys == [{"image", "mask", "id"}]


def test_a_network_is_scored_without_a_module_that_trains(
    spread_out, make_data, make_trainer, witness
):
    module = spread_out()
    alone = ScoredNetwork(module.net, module.classes)
    trainer = make_trainer(callbacks=[Validation([witness])])
    (logged,) = trainer.validate(alone, make_data(), verbose=False)
    (expected,) = make_trainer().validate(module, make_data(), verbose=False)
    assert logged == expected
    assert [image.refined for image in witness.images] == [None] * 5
    assert witness.told[1] is None


def test_a_crf_that_fails_ends_the_validation(make_module, make_data, make_trainer, monkeypatch):
    def refine(self, image, probabilities):
        raise RuntimeError("no memory")

    monkeypatch.setattr(DenseCRF, "__call__", refine)
    trainer = make_trainer(callbacks=[Validation(crf=CRF)])
    with pytest.raises(RuntimeError, match="no memory"):
        trainer.validate(make_module(), make_data(), verbose=False)


def test_few_images_wait_for_the_crf_at_a_time(
    make_module, make_data, make_trainer, witness, monkeypatch
):
    """However long the set: two for each thread, and what waits is in the machine's memory."""
    monkeypatch.setattr("deeplab_lit.scoring.validation.cores", lambda: 1)
    submitted, waiting, refine = [], [], DenseCRF.__call__

    class Counting(Validation):
        def on_validation_batch_end(self, *args, **kwargs):
            super().on_validation_batch_end(*args, **kwargs)
            submitted.append(args[3]["id"])
            waiting.append(len(submitted) - len(witness.images))

    monkeypatch.setattr(DenseCRF, "__call__", lambda *args: refine(*args))
    trainer = make_trainer(callbacks=[Counting([witness], CRF)])
    trainer.validate(make_module(), make_data(val_size=8), verbose=False)
    assert len(witness.images) == 8
    assert max(waiting) == 2


class Fits(Observer):
    """A metric as a user writes it: the share of images of which half of the pixels are right."""

    def start(self, trainer, network):
        self.fits = {}

    def see(self, image):
        self.fits[image.id] = bool((image.labels == image.mask).float().mean() > 0.5)

    def finish(self, trainer, scores, refined):
        fits = gathered(self.fits, trainer)
        return {"fits": sum(fits.values()) / len(fits), "which": sorted(fits)}


def test_a_metric_of_ones_own_is_logged_kept_and_decides_about_checkpoints(
    make_module, make_data, make_trainer, tmp_path
):
    """Although the checkpoint and early stopping stand before it in the list."""
    record = RunRecord(tmp_path, {}, monitor="val/fits")
    best = ModelCheckpoint(tmp_path, "best", "val/fits", mode="max")
    stop = EarlyStopping("val/fits", patience=9, mode="max", strict=True)
    callbacks = [best, stop, Validation([Fits()], CRF, record.take), record]
    module, data = make_module(), make_data()
    trainer = make_trainer(
        callbacks=callbacks,
        enable_checkpointing=True,
        num_sanity_val_steps=1,
        val_check_interval=2,
        max_steps=2,
    )
    trainer.fit(module, data)
    masks = [(data.validation().read(i)[1], i) for i in range(5)]
    with torch.no_grad():
        shares = [
            (module.net.eval()(image[None]).argmax(1)[0].numpy() == mask).mean()
            for mask, i in masks
            for image in [torch.from_numpy(data.validation().read(i)[0]).permute(2, 0, 1)]
        ]
    expected = np.mean(np.array(shares) > 0.5)
    final = json.loads((tmp_path / "results.json").read_text())["final"]
    assert final["metrics"] == {"fits": pytest.approx(expected)}
    assert final["which"] == sorted(data.validation().ids)
    assert float(best.best_model_score) == pytest.approx(expected)
    kept = torch.load(best.best_model_path, weights_only=False)["callbacks"]["RunRecord"]
    assert kept["final"]["step"] == kept["best"]["step"] == 2  # told before it was written


@pytest.mark.parametrize("name", ["miou", "loss", "images", "twice"])
def test_two_results_of_one_name_are_refused(name, make_module, make_data, make_trainer):
    class Same(Observer):
        def finish(self, trainer, scores, refined):
            return {name: 1.0}

    trainer = make_trainer(callbacks=[Validation([Same(), Same()])], limit_val_batches=1)
    with pytest.raises(ObserverError, match=f"Same.finish returns '{name}'"):
        trainer.validate(make_module(), make_data(), verbose=False)


def test_the_check_before_training_runs_the_crf_and_is_shown_to_nobody(
    make_module, make_data, make_trainer, witness, monkeypatch
):
    refined, reports, refine = [], [], DenseCRF.__call__
    monkeypatch.setattr(DenseCRF, "__call__", lambda *a: refined.append(1) or refine(*a))
    validation = Validation([witness], CRF, lambda *args: reports.append(args))
    trainer = make_trainer(
        callbacks=[validation], num_sanity_val_steps=2, limit_val_batches=2, max_steps=1,
        val_check_interval=2,
    )  # fmt: skip
    trainer.fit(make_module(), make_data())
    assert len(refined) == 2
    assert not hasattr(witness, "images")
    assert reports == []


def test_scores_begin_anew_with_each_validation(make_module, make_data, make_trainer, witness):
    reports = []
    validation = Validation([witness], None, lambda trainer, results: reports.append(results))
    trainer = make_trainer(callbacks=[validation], val_check_interval=1, max_steps=2)
    trainer.fit(make_module(lr=0.0), make_data())
    pixels = [int(results.scores.confusion.sum()) for results in reports]
    assert len(pixels) == 2
    assert pixels[0] == pixels[1]
    assert [results.images for results in reports] == [5, 5]


class FirstClass:
    """A replacement of the CRF: everything is of the first class."""

    def __call__(self, image, probabilities):
        refined = np.zeros_like(probabilities)
        refined[0] = 1
        return refined

    def stays_on(self, device):
        return False

    def settings(self, device):
        return {"name": "first class"}


def test_a_replacement_of_the_crf_is_scored_as_the_crf_is(
    make_module, make_data, make_trainer, witness
):
    reports = []
    validation = Validation([witness], FirstClass(), lambda *args: reports.append(args[1]))
    trainer = make_trainer(callbacks=[validation], limit_val_batches=2)
    trainer.validate(make_module(), make_data(), verbose=False)
    assert [int(image.refined.max()) for image in witness.images] == [0, 0]
    assert reports[0].as_dict()["crf"]["name"] == "first class"
    assert reports[0].refined.confusion[:, 1:].sum() == 0


README = Path(__file__).parents[2] / "deeplab_lit/README.md"
RECIPE = re.search(r"```python\n(# my_metric\.py.*?)```", README.read_text("utf-8"), re.DOTALL)[1]
RIGHT = """
from deeplab_lit.scoring.observer import Observer
from deeplab_lit.scoring.per_image import gathered


class Right(Observer):
    def __init__(self, share: float = 0.5) -> None:
        self.share = share

    def start(self, trainer, network):
        self.right = {}

    def see(self, image):
        self.right[image.id] = float((image.labels == image.mask).float().mean()) > self.share

    def finish(self, trainer, scores, refined):
        right = gathered(self.right, trainer)
        return {"right": sum(right.values()) / len(right)}
"""


def test_a_metric_from_outside_the_package_is_an_option_of_fit_and_of_validate(
    tmp_path, tiny_args, monkeypatch, capsys
):
    (tmp_path / "metric_of_mine.py").write_text(RIGHT)
    monkeypatch.syspath_prepend(tmp_path)
    mine = {"--metrics": "metric_of_mine.Right", "--metrics.share": "1.0", "--run": "a"}
    done = fit.main(tiny_args(tmp_path / "runs", **mine, **{"--checkpoint.monitor": "val/right"}))
    assert done.record.final["metrics"] == {"right": 0}  # void is never right
    assert float(kept_by(done.trainer).best_model_score) == 0
    best = tmp_path / "runs/shapes/a/checkpoints/best.ckpt"
    args = [f"--ckpt_path={best}", "--metrics+=metric_of_mine.Right", "--metrics.share=-1"]
    assert validate.main(args).record.final["metrics"] == {"right": 1}
    shown = capsys.readouterr().out.splitlines()
    assert ["right", "1"] in [line.split() for line in shown]
    (tmp_path / "my_metric.py").write_text(RECIPE)
    scores = validate.main([f"--ckpt_path={best}", "--metrics=my_metric.Right"]).record.final
    # images of one size; here void counts as wrong
    assert 0.8 * scores["pixel_accuracy"] < scores["metrics"]["right"] < scores["pixel_accuracy"]


def finding(value):
    """Return what a validation keeps of a value that an observer returns: metric, entry."""

    class Finds(Observer):
        def finish(self, trainer, scores, refined):
            return {"x": value}

    validation = Validation([Finds()])
    confusion = SimpleNamespace(confusion=None, as_dict=lambda classes: {})
    network = ScoredNetwork(torch.nn.Identity(), {"a": (0, 0, 0)})
    network.count_scores, network.log_dict = lambda: confusion, lambda values, **options: None
    trainer = SimpleNamespace(
        sanity_checking=False,
        strategy=SimpleNamespace(root_device="cpu", reduce=lambda x, reduce_op: x),
        val_dataloaders=SimpleNamespace(dataset=[]),
    )
    validation.on_validation_epoch_end(trainer, network)
    return validation.results.metrics.get("x"), validation.results.entries.get("x")


@pytest.mark.parametrize(
    ("value", "metric", "entry"),
    [
        (np.float32(0.5), 0.5, None),
        (np.array([3]), 3.0, None),
        (torch.tensor([0.5]), 0.5, None),
        (torch.ones(2, requires_grad=True), None, [1.0, 1.0]),
        (np.array([1.0, np.nan]), None, [1.0, None]),
        ({"a": np.int64(1), "b": (torch.tensor(2), float("inf"))}, None, {"a": 1, "b": [2, None]}),
        (True, None, True),
        (np.bool_(True), None, True),
    ],
)
def test_what_an_observer_finds_is_kept_as_plain_data(value, metric, entry, tmp_path):
    found = finding(value)
    assert found == (metric, entry)
    assert type(found[1]) is type(entry)
    json.dumps(found, allow_nan=False)
    torch.save(found, tmp_path / "state.pt")
    assert torch.load(tmp_path / "state.pt", weights_only=True) == found


def test_what_no_file_can_hold_is_refused_with_the_observers_name():
    with pytest.raises(ObserverError, match=r"Finds\.finish, 'x' is PosixPath"):
        finding({"a": [Path("x")]})


def test_findings_that_are_no_dictionary_are_refused(make_module, make_data, make_trainer):
    class Forgets(Observer):
        def finish(self, trainer, scores, refined):
            pass

    trainer = make_trainer(callbacks=[Validation([Forgets()])], limit_val_batches=1)
    with pytest.raises(ObserverError, match=r"Forgets\.finish returns None, expected a dictionary"):
        trainer.validate(make_module(), make_data(), verbose=False)


@pytest.mark.parametrize("returned", [None, torch.zeros(1), {"loss": 1.0}])
def test_a_validation_step_that_returns_something_else_is_told_what_to_return(returned):
    network = ScoredNetwork(torch.nn.Identity(), {"a": (0, 0, 0)})
    with pytest.raises(UserError, match=r"ScoredNetwork\.validation_step must return logits"):
        Validation().on_validation_batch_end(None, network, returned, {}, 0)
