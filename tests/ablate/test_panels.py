import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml

import deeplab_lit
from deeplab_lit.ablate.panels import Panels, fields_of_view, look, scoring_of
from deeplab_lit.ablate.results import best_checkpoint, read_results
from deeplab_lit.ablate.table import rows
from deeplab_lit.crf import DenseCRF
from deeplab_lit.data import DataError, Shapes
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.receptive_field import effective_fields, side_of
from deeplab_lit.runs.folder import RunFolderError
from deeplab_lit.yaml_files import ConfigError


def network_of(row):
    return deeplab_lit.load(best_checkpoint(row.results[0].run))


@pytest.fixture
def made(done):
    return rows(read_results(done)[0], ["a", "b"], after_crf=False)


def test_pictures_are_of_the_same_images_for_every_setting(made, done):
    panels = look(made, num_images=2)
    split = Shapes(val_size=4).split("val")
    assert [sample[0] for sample in panels.samples] == [split.ids[0], split.ids[2]]
    for sample, index in zip(panels.samples, (0, 2), strict=True):
        image, truth = split.read(index)
        np.testing.assert_array_equal(sample[1], image)
        np.testing.assert_array_equal(sample[2], truth)
    image = torch.tensor(panels.samples[1][1]).permute(2, 0, 1)[None]
    for run, mask in zip(done[:2], panels.samples[1][3], strict=True):  # seed 0 of both settings
        net = deeplab_lit.load(run.fit.folder / "checkpoints/best.ckpt")
        with torch.inference_mode():
            np.testing.assert_array_equal(mask, net(image)[0].argmax(0))
    assert panels.classes == Shapes.classes


def test_a_network_may_have_the_classes_in_another_order(made, monkeypatch):
    before = look(made, num_images=1).samples[0].predictions
    load = deeplab_lit.load

    def load_reversed(path):
        net = load(path)
        net.classes = dict(reversed(net.classes.items()))
        return net

    monkeypatch.setattr(deeplab_lit, "load", load_reversed)
    panels = look(made, num_images=1)
    assert panels.classes == Shapes.classes
    for mask, other in zip(panels.samples[0].predictions, before, strict=True):
        np.testing.assert_array_equal(mask, len(Shapes.classes) - 1 - other)


def test_pictures_are_scored_as_the_setting_was(done):
    """At its own scales, and after its own CRF where the settings are compared after it."""
    for run, bi_w in zip(done[:2], (10.0, 0.0), strict=True):
        path = run.validate.folder / "config.yaml"
        config = yaml.safe_load(path.read_text())
        config["eval"]["scales"] = [1.0, 0.5]
        config["crf"] = {"bi_w": bi_w, "pos_w": 0.0, "backend": "torch"}
        path.write_text(yaml.safe_dump(config))
    made = rows(read_results(done)[0], ["a", "b"], after_crf=True)
    _, image, _, masks = look(made, num_images=1).samples[0]
    for row, mask, bi_w in zip(made, masks, (10.0, 0.0), strict=True):
        with torch.inference_mode():
            pixels = torch.tensor(image).permute(2, 0, 1)[None]
            probabilities = network_of(row)(pixels, (1.0, 0.5)).softmax(1)[0]
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
        "{data: Shapes, eval: {window: wide}, crf: {}}",
        "{data: Shapes, eval: {}, crf: {old_option: 4}}",
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
    with pytest.raises(ConfigError, match=r"'mine_alone\.Mine', which is none .* not followed"):
        scoring_of(made[0])
    assert "mine_alone" not in sys.modules
    (tmp_path / "typed.yaml").write_text("data: {class_path: mine_alone.Mine}")
    (tmp_path / "scored.yaml").write_text("val_data: mine_alone.Mine")
    files = [f"--config={tmp_path / name}" for name in ("typed.yaml", "scored.yaml")]
    for word in ("--data=mine_alone.Mine", "--val_data=mine_alone.Mine", *files):
        run = replace(done[0], fit=replace(done[0].fit, args=(word,)))
        typed = replace(made[0], results=[replace(made[0].results[0], run=run)])
        assert type(scoring_of(typed).data).__name__ == "Mine"


def test_data_that_is_gone_is_said_in_its_own_words(made, done):
    voc = "{data: {class_path: VOC, init_args: {root: /nowhere}}, eval: {}, crf: {}}"
    (done[0].validate.folder / "config.yaml").write_text(voc)
    with pytest.raises(DataError, match=r"^--data\.root /nowhere: no PASCAL VOC"):
        scoring_of(made[0])


@pytest.fixture
def images():
    image, _ = Shapes(val_size=1).split("val").read(0)
    return torch.tensor(image).permute(2, 0, 1)[None]


def test_branches_are_those_of_each_network(made):
    panels = look(made, num_images=1)
    names = {words: [branch.name for branch in found] for words, found in panels.branches.items()}
    assert names == {"a": ["rate 1"], "b": ["rate 2", "rate 4"]}
    assert panels.grids == {"a": (21, 21), "b": (21, 21)}  # (161 − 1) / 8 + 1
    assert panels.rates() == {(21, 21): [1, 2, 4]}
    assert list(panels.fields()) == ["a\nrate 1", "b\nrate 2", "b\nrate 4"]
    # along a side of 21 cells, a rate r leaves 3·21 − 2r of 3·21 taps
    one, four = panels.branches["a"][0], panels.branches["b"][1]
    assert one.taps == pytest.approx((61 / 63) ** 2)
    assert four.taps == pytest.approx((55 / 63) ** 2)
    # from rate 1 to rate 4 the kernel grows from 3 to 9 cells of 8 pixels
    assert four.theoretical - one.theoretical == 6 * 8
    assert one.field.shape == (161, 161)
    assert 0 < one.effective <= one.theoretical


def test_each_network_is_loaded_once(made, monkeypatch):
    """Also that of two settings which share their trainings."""
    loaded = []
    load = deeplab_lit.load
    monkeypatch.setattr(deeplab_lit, "load", lambda path: loaded.append(path) or load(path))
    shared = [made[0], replace(made[0], label="same"), made[1]]
    panels = look(shared, num_images=1)
    assert loaded == [best_checkpoint(row.results[0].run) for row in made]
    assert list(panels.branches) == ["a / same", "b"]
    predictions = panels.samples[0].predictions
    np.testing.assert_array_equal(predictions[0], predictions[1])
    assert (predictions[0] != predictions[2]).any()


def small_net(head="aspp", rates=(), stride=8):
    return DeepLabV2(
        2,
        backbone="resnet10_quarter",
        norm="batch",
        output_stride=stride,
        head=head,
        atrous_rates=rates,
    ).eval()


def test_image_pooling_sees_the_whole_image(images):
    branches, grid = fields_of_view(small_net("aspp_concat", (2, 4)), images)
    assert [branch.name for branch in branches] == ["1×1", "rate 2", "rate 4", "image pooling"]
    assert branches[3].theoretical is None
    assert branches[3].effective > branches[0].effective
    assert Panels({}, [], {"a": branches}, {"a": grid}).rates() == {(21, 21): [2, 4]}


def test_settings_keep_their_own_fields_and_grids(images):
    """A rate is as many cells on every grid, and looks through other weights in every network."""
    nets = {
        "a": small_net(rates=(2,)),
        "b": small_net(rates=(2, 3), stride=16),
        "c": small_net(rates=(1,), stride=16),
        "d": small_net("conv1x1"),
    }
    seen = {label: fields_of_view(net, images) for label, net in nets.items()}
    panels = Panels({}, [], *({label: x[i] for label, x in seen.items()} for i in (0, 1)))
    assert panels.grids == {"a": (21, 21), "b": (11, 11), "c": (11, 11), "d": (21, 21)}
    assert panels.rates() == {(21, 21): [2], (11, 11): [1, 2, 3]}
    fields = panels.fields()
    assert list(fields) == ["a\nrate 2", "b\nrate 2", "b\nrate 3", "c\nrate 1", "d\n1×1"]
    expected = effective_fields(nets["b"], images)
    assert torch.equal(fields["b\nrate 2"], expected[0])
    assert torch.equal(fields["b\nrate 3"], expected[1])
    assert torch.equal(fields["a\nrate 2"], effective_fields(nets["a"], images)[0])
    # a cell of the coarse grid lies on pixel 5·16, in the middle of 161
    assert panels.branches["b"][1].effective == side_of(expected[1], (80, 80))


def test_grids_without_rates_have_none(images):
    branches, grid = fields_of_view(small_net("conv1x1"), images)
    assert Panels({}, [], {"a": branches}, {"a": grid}).rates() == {}
