import pytest
import torch

from deeplab_lit.ablate.branches import fields
from deeplab_lit.ablate.results import read_results
from deeplab_lit.ablate.table import Row, rows
from deeplab_lit.data import Shapes
from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.receptive_field import effective_fields, side_of


@pytest.fixture
def images():
    image, _ = Shapes(val_size=1).split("val").read(0)
    return torch.tensor(image).permute(2, 0, 1)[None]


def test_branches_are_those_of_each_network(done, images):
    seen = fields(rows(read_results(done), ["a", "b"], after_crf=False), images)
    names = {words: [branch.name for branch in own] for words, own in seen.branches.items()}
    assert names == {"a": ["rate 1"], "b": ["rate 2", "rate 4"]}
    assert seen.grids == {"a": (21, 21), "b": (21, 21)}  # (161 − 1) / 8 + 1
    assert seen.rates() == {(21, 21): [1, 2, 4]}
    # along a side of 21 cells, a rate r leaves 3·21 − 2r of 3·21 taps
    one, four = seen.branches["a"][0], seen.branches["b"][1]
    assert one.taps == pytest.approx((61 / 63) ** 2)
    assert four.taps == pytest.approx((55 / 63) ** 2)
    # from rate 1 to rate 4 the kernel grows from 3 to 9 cells of 8 pixels
    assert four.theoretical - one.theoretical == 6 * 8
    assert one.field.shape == (161, 161)
    assert 0 < one.effective <= one.theoretical


def test_image_pooling_sees_the_whole_image(make_row, monkeypatch, images):
    net = DeepLabV2(
        2, backbone="resnet10_quarter", norm="batch", head="aspp_concat", atrous_rates=(2, 4)
    ).eval()
    monkeypatch.setattr(Row, "network", lambda row: net)
    seen = fields([make_row("a", [0.5])], images)
    own = seen.branches["a"]
    assert [branch.name for branch in own] == ["1×1", "rate 2", "rate 4", "image pooling"]
    assert own[3].theoretical is None
    assert own[3].effective > own[0].effective
    assert seen.rates() == {(21, 21): [2, 4]}


def test_settings_keep_their_own_fields_and_grids(make_row, monkeypatch, images):
    """A rate is as many cells on every grid, and looks through other weights in every network."""
    options = {"a": (8, [2]), "b": (16, [2, 3]), "c": (16, [1]), "d": (8, None)}
    nets = {
        label: DeepLabV2(
            2,
            backbone="resnet10_quarter",
            norm="batch",
            output_stride=stride,
            head="aspp" if rates else "conv1x1",
            atrous_rates=rates or (),
        ).eval()
        for label, (stride, rates) in options.items()
    }
    monkeypatch.setattr(Row, "network", lambda row: nets[row.label])
    seen = fields([make_row(label, [0.5], setting=i) for i, label in enumerate(nets)], images)
    assert seen.grids == {"a": (21, 21), "b": (11, 11), "c": (11, 11), "d": (21, 21)}
    assert seen.rates() == {(21, 21): [2], (11, 11): [1, 2, 3]}
    pictures = seen.pictures()
    assert list(pictures) == ["a\nrate 2", "b\nrate 2", "b\nrate 3", "c\nrate 1", "d\n1×1"]
    expected = effective_fields(nets["b"], images)
    assert torch.equal(pictures["b\nrate 2"], expected[0])
    assert torch.equal(pictures["b\nrate 3"], expected[1])
    assert torch.equal(pictures["a\nrate 2"], effective_fields(nets["a"], images)[0])
    # a cell of the coarse grid lies on pixel 5·16, in the middle of 161
    assert seen.branches["b"][1].effective == side_of(expected[1], (80, 80))


def test_grids_without_rates_have_none(make_row, monkeypatch, images):
    net = DeepLabV2(2, backbone="resnet10_quarter", norm="batch", head="conv1x1", atrous_rates=())
    monkeypatch.setattr(Row, "network", lambda row: net.eval())
    assert fields([make_row("a", [0.5])], images).rates() == {}
