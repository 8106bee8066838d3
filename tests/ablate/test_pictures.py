import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

import deeplab_lit
from deeplab_lit.ablate.pictures import look, scoring_of
from deeplab_lit.ablate.results import read_results
from deeplab_lit.ablate.table import rows
from deeplab_lit.crf import DenseCRF
from deeplab_lit.data import DataError, Shapes
from deeplab_lit.runs.folder import RunFolderError
from deeplab_lit.yaml_files import ConfigError


@pytest.fixture
def made(done):
    return rows(read_results(done), ["a", "b"], after_crf=False)


def test_pictures_are_of_the_same_images_for_every_setting(made, done):
    shown = look(made, num_images=2)
    split = Shapes(val_size=4).split("val")
    assert [sample[0] for sample in shown.samples] == [split.ids[0], split.ids[2]]
    for sample, index in zip(shown.samples, (0, 2), strict=True):
        image, truth = split.read(index)
        np.testing.assert_array_equal(sample[1], image)
        np.testing.assert_array_equal(sample[2], truth)
    image = torch.tensor(shown.samples[1][1]).permute(2, 0, 1)[None]
    for run, mask in zip(done[:2], shown.samples[1][3], strict=True):  # seed 0 of both settings
        net = deeplab_lit.load(run.fit.folder / "checkpoints/best.ckpt")
        with torch.inference_mode():
            np.testing.assert_array_equal(mask, net(image)[0].argmax(0))
    assert shown.classes == Shapes.classes


def test_pictures_are_scored_as_the_setting_was(done):
    """At its own scales, and after its own CRF where the settings are compared after it."""
    for run, bi_w in zip(done[:2], (10.0, 0.0), strict=True):
        path = run.validate.folder / "config.yaml"
        config = yaml.safe_load(path.read_text())
        config["eval"]["scales"] = [1.0, 0.5]
        config["crf"] |= {"bi_w": bi_w, "pos_w": 0.0, "backend": "torch"}
        path.write_text(yaml.safe_dump(config))
    made = rows(read_results(done), ["a", "b"], after_crf=True)
    _, image, _, masks = look(made, num_images=1).samples[0]
    for row, mask, bi_w in zip(made, masks, (10.0, 0.0), strict=True):
        with torch.inference_mode():
            pixels = torch.tensor(image).permute(2, 0, 1)[None]
            probabilities = row.network()(pixels, (1.0, 0.5)).softmax(1)[0]
        refined = DenseCRF(bi_w=bi_w, pos_w=0.0, backend="torch")(image, probabilities.numpy())
        np.testing.assert_array_equal(mask, refined.argmax(0))
        assert (mask == probabilities.argmax(0).numpy()).all() == (bi_w == 0)


def test_of_few_images_each_is_shown_once(made):
    assert [sample[0] for sample in look(made, num_images=9).samples] == [
        str(1_000_000 + i) for i in range(4)
    ]


@pytest.mark.parametrize(
    "text",
    [
        None,
        "data: [1",
        "trainer: {max_steps: 3}",
        "{data: nowhere.Gone, eval: {}, crf: {}}",
        "{data: {class_path: Shapes, init_args: {old_option: 4}}, eval: {}, crf: {}}",
        "{data: Shapes, eval: {old_option: 4}, crf: {}}",
    ],
)
def test_a_configuration_that_cannot_be_followed_is_named(made, done, text):
    path = done[0].validate.folder / "config.yaml"
    path.unlink() if text is None else path.write_text(text)
    with pytest.raises((RunFolderError, ConfigError)) as caught:
        scoring_of(made[0])
    assert str(caught.value).startswith(str(path))


def test_a_class_of_ones_own_is_followed_only_where_it_was_typed(made, done, tmp_path, monkeypatch):
    """The runs of somebody else must import nothing when they are reported."""
    code = "from deeplab_lit.data import Shapes\nclass Mine(Shapes):\n    pass\n"
    (tmp_path / "mine_alone.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    config = {"data": {"class_path": "mine_alone.Mine"}, "eval": {}, "crf": {}}
    (done[0].validate.folder / "config.yaml").write_text(json.dumps(config))
    with pytest.raises(RunFolderError, match=r"'mine_alone\.Mine', which neither .* not followed"):
        scoring_of(made[0])
    assert "mine_alone" not in sys.modules
    (tmp_path / "typed.yaml").write_text("data: {class_path: mine_alone.Mine}")
    for word in ("--data=mine_alone.Mine", f"--config={tmp_path / 'typed.yaml'}"):
        run = replace(done[0], fit=replace(done[0].fit, args=(word,)))
        typed = replace(made[0], results=[replace(made[0].results[0], run=run)])
        assert type(scoring_of(typed).data).__name__ == "Mine"


def test_data_that_is_gone_is_said_in_its_own_words(made, done):
    voc = "{data: {class_path: VOC, init_args: {root: /nowhere}}, eval: {}, crf: {}}"
    (done[0].validate.folder / "config.yaml").write_text(voc)
    with pytest.raises(DataError, match=r"^--data\.root /nowhere: no PASCAL VOC"):
        scoring_of(made[0])
