import csv

import pytest
import torch
from PIL import Image

from deeplab_lit import fit, load, predict
from deeplab_lit.data import Shapes
from deeplab_lit.data.shapes import draw_sample
from deeplab_lit.methods import SelfTraining

NAME = "deeplab_lit.methods.SelfTraining"


@pytest.fixture
def target(tmp_path):
    """A folder of drawn images, without labels."""
    (folder := tmp_path / "target").mkdir()
    for i in range(4):
        Image.fromarray(draw_sample(7, i)[0]).save(folder / f"{i}.png")
    return folder


def self_training(target, **changes):
    options = {"--model": NAME, "--unlabeled_data": "Images", "--unlabeled_data.root": str(target)}
    return options | {"--trainer.log_every_n_steps": "1"} | changes


def rows(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        return [{k: float(v) for k, v in row.items() if v} for row in csv.DictReader(file)]


def test_three_commands_train_on_the_networks_labels_of_images_without_labels(
    trained, target, tmp_path, tiny_args
):
    content = torch.load(trained, weights_only=True)  # of a network that finds nothing yet
    torch.nn.init.normal_(content["state_dict"]["net.head.branches.0.weight"], std=0.1)
    torch.save(content, first := tmp_path / "first.ckpt")
    out = tmp_path / "pseudo"
    args = [f"--ckpt_path={first}", f"--images={target}", f"--out={out}"]
    predict.main([*args, "--pseudo_labels", "--min_confidence=0.2", "--num_workers=0"])
    options = self_training(target, **{"--unlabeled_data.mask_dir": str(out / "masks")})
    done = fit.main(tiny_args(tmp_path / "runs", **options, **{"--run": "x"}))
    for row in (row for row in rows(done.folder) if "train/loss" in row):
        expected = row["train/source_loss"] + row["train/target_loss"]
        assert row["train/loss"] == pytest.approx(expected, rel=1e-5)
        assert 0 < row["train/labeled_share"] <= 1
    assert len(list((done.folder / "training").glob("*.png"))) == 4
    load(done.folder / "checkpoints/last.ckpt")


def test_the_loss_is_that_of_both_batches_and_void_counts_nothing():
    torch.manual_seed(0)
    module = SelfTraining(
        Shapes.classes, target_weight=0.5, weights="none", backbone="resnet10_quarter",
        atrous_rates=(2, 4), scales=(1.0, 0.5),
    )  # fmt: skip
    images = torch.randint(256, (4, 3, 65, 65), dtype=torch.uint8)
    masks = torch.randint(7, (4, 65, 65), dtype=torch.uint8)
    masks[3] = 255
    logged = {}
    module.log = lambda name, value, **kwargs: logged.update({name: value.item()})
    module.log_dict = lambda values, **kwargs: [module.log(*item) for item in values.items()]

    def step(rows):
        parts = {"image": images[rows], "mask": masks[rows], "id": ["", ""]}
        batch = {"image": images[:2], "mask": masks[:2], "id": ["", ""], "unlabeled": parts}
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("deeplab_lit.methods.self_training.show_batch", lambda *a, **k: None)
            return module.training_step(batch, 0)

    expected = module.labeled_loss(images[:2], masks[:2])
    expected = expected + 0.5 * module.labeled_loss(images[2:], masks[2:])
    torch.testing.assert_close(step([2, 3]), expected)
    assert logged["train/labeled_share"] == 0.5
    loss = step([3, 3])  # nothing but void
    torch.testing.assert_close(loss, module.labeled_loss(images[:2], masks[:2]))
    loss.backward()
    assert logged["train/target_loss"] == 0


def test_a_run_that_was_stopped_goes_on_to_the_bit(target, tmp_path, tiny_args):
    """In an epoch of both data sets: 2 of 4 steps, then the others."""
    (masks := tmp_path / "masks").mkdir()
    for i in range(4):
        Image.fromarray(draw_sample(7, i)[1]).save(masks / f"{i}.png")
    options = self_training(target, **{"--unlabeled_data.mask_dir": str(masks)})
    options |= {"--model.schedule_steps": "4", "--run": "x"}
    whole = fit.main(tiny_args(tmp_path / "a", **options, **{"--trainer.max_steps": "4"}))
    fit.main(tiny_args(tmp_path / "b", **options, **{"--trainer.max_steps": "2"}))
    more = {"--trainer.max_steps": "4", "--ckpt_path": "last"}
    parts = fit.main(tiny_args(tmp_path / "b", **options, **more))
    first, second = (
        torch.load(run.folder / "checkpoints/last.ckpt", weights_only=True)["state_dict"]
        for run in (whole, parts)
    )
    assert all(value.equal(second[name]) for name, value in first.items())
    losses = [
        [row["train/target_loss"] for row in rows(run.folder) if "train/target_loss" in row]
        for run in (whole, parts)
    ]
    assert losses[0] == losses[1]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "SelfTraining learns from pseudo-labels: give their folder as --unlabeled_data.mask"),
        ({"--unlabeled_data": None, "--unlabeled_data.root": None}, "needs --unlabeled_data"),
        ({"--model.target_weight": "-1"}, "target_weight is out of range: -1.0"),
        ({"--unlabeled_data.mask_dir": "{target}/none"}, "files are missing"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(
    target, tmp_path, tiny_args, capsys, changes, words
):
    changes = {k: v and v.format(target=target) for k, v in changes.items()}
    with pytest.raises(SystemExit) as stop:
        fit.main(tiny_args(tmp_path / "runs", **self_training(target, **changes)))
    assert stop.value.code == 2
    assert words in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
