"""Heads against their formulas, written out."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from deeplab_lit.network.head import build_head


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def make(name="aspp", rates=(1, 2, 4), vgg=False, in_channels=4, num_classes=3):
    return build_head(
        name, vgg=vgg, in_channels=in_channels, num_classes=num_classes, atrous_rates=rates
    )


def conv(x, layer, **kwargs):
    return F.conv2d(x, layer.weight, layer.bias, **kwargs)


@pytest.mark.parametrize("rates", [(6, 12, 18, 24), (2, 4, 8, 12), (3,), (5, 1, 7)], ids=str)
@pytest.mark.parametrize(("name", "vgg"), [("aspp", False), ("aspp", True), ("aspp_concat", False)])
def test_every_rate_reaches_a_convolution_in_the_order_given(name, vgg, rates):
    head = make(name, rates, vgg)
    found = [m for m in head.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert [m.dilation for m in found] == [(rate, rate) for rate in rates]
    assert head.eval()(torch.randn(2, 4, 7, 5)).shape == (2, 3, 7, 5)


@pytest.mark.parametrize(("name", "vgg"), [("aspp", False), ("aspp", True), ("aspp_concat", False)])
def test_every_branch_gets_gradient_and_counts_in_the_output(name, vgg):
    head = make(name, (1, 2, 4, 6), vgg).train()
    x = torch.randn(2, 4, 9, 9)
    head(x).square().sum().backward()
    silent = [n for n, p in head.branches.named_parameters() if not p.grad.any()]
    assert not silent
    head.eval()
    before = head(x)
    for branch in head.branches:
        last = list(branch.parameters())[-2:] if vgg or name != "aspp" else branch.parameters()
        saved = [p.detach().clone() for p in last]
        last = list(branch.parameters())[-len(saved) :]
        with torch.no_grad():
            for p in last:
                p.zero_()
            assert not torch.allclose(head(x), before, rtol=1e-6, atol=1e-9)
            for p, s in zip(last, saved, strict=True):
                p.copy_(s)
    assert torch.equal(head(x), before)


def test_aspp_3x3_is_resnets_aspp_behind_any_backbone():
    torch.manual_seed(1)
    head = make("aspp_3x3", (1, 3), vgg=True)
    torch.manual_seed(1)
    resnets = make("aspp", (1, 3), vgg=False)
    assert head.state_dict().keys() == resnets.state_dict().keys()
    x = torch.randn(1, 4, 7, 5)
    assert torch.equal(head(x), resnets(x))
    assert head.new_layers() == tuple(head.branches)


def test_aspp_is_the_sum_of_its_atrous_convolutions():
    rates = (1, 3, 6, 8)
    head = make(rates=rates).double()
    for branch in head.branches:
        nn.init.normal_(branch.bias)
    x = torch.randn(2, 4, 9, 7, dtype=torch.float64)
    expected = sum(
        conv(x, branch, padding=rate, dilation=rate)
        for branch, rate in zip(head.branches, rates, strict=True)
    )
    torch.testing.assert_close(head(x), expected)


@pytest.mark.parametrize(("name", "rates"), [("aspp", (2, 4)), ("largefov", (3,))])
def test_vgg_branches_are_fc6_fc7_fc8_with_dropout_between(name, rates):
    head = make(name, rates, vgg=True)
    for branch in head.branches:
        names = ["fc6", "relu6", "drop6", "fc7", "relu7", "drop7", "fc8"]
        assert [n for n, _ in branch.named_children()] == names
        assert branch.drop6.p == branch.drop7.p == 0.5
        assert branch.fc6.out_channels == branch.fc7.in_channels == branch.fc7.out_channels == 1024
    x = torch.randn(2, 4, 6, 8)
    pooled = x
    if name == "largefov":  # pool5a: an average over 3×3 that counts the padding
        pooled = F.conv2d(x, torch.full((4, 1, 3, 3), 1 / 9), padding=1, groups=4)
    expected = 0
    for branch, rate in zip(head.branches, rates, strict=True):
        hidden = conv(pooled, branch.fc6, padding=rate, dilation=rate).relu()
        expected = expected + conv(conv(hidden, branch.fc7).relu(), branch.fc8)
    torch.testing.assert_close(head.eval()(x), expected)
    head.train()
    assert not torch.equal(head(x), head(x))


def test_resnet_largefov_is_one_convolution_without_pooling():
    head = make("largefov", (12,))
    x = torch.randn(1, 4, 5, 5)
    expected = conv(x, head.branches[0], padding=12, dilation=12)
    torch.testing.assert_close(head(x), expected)


@pytest.mark.parametrize("vgg", [False, True])
def test_conv1x1_is_a_matrix_at_each_cell(vgg):
    head = make("conv1x1", (), vgg).eval()
    (layer,) = head.new_layers()
    assert layer.weight.shape == (3, 4, 1, 1)
    nn.init.normal_(layer.bias)
    x = torch.randn(2, 4, 5, 7)
    expected = torch.einsum("kd,bdhw->bkhw", layer.weight[..., 0, 0], x)
    torch.testing.assert_close(head(x), expected + layer.bias[:, None, None])
    assert len(list(head.parameters())) == 2


def test_aspp_concat_is_pyramid_pooling_projection_and_classifier():
    head = make("aspp_concat", (2, 3)).double().eval()
    for m in head.modules():
        if isinstance(m, nn.BatchNorm2d):
            with torch.no_grad():
                m.running_mean.normal_()
                m.running_var.uniform_(0.5, 2)
                m.weight.uniform_(0.5, 2)
                m.bias.normal_()

    def norm_relu(x, m):
        x = (x - m.running_mean[:, None, None]) / (m.running_var[:, None, None] + 1e-5).sqrt()
        return (x * m.weight[:, None, None] + m.bias[:, None, None]).clamp(min=0)

    x = torch.randn(2, 4, 6, 5, dtype=torch.float64)
    one, two, three, pooling = head.branches
    mean = x.flatten(2).sum(-1)[..., None, None] / 30
    pyramid = [
        norm_relu(conv(x, one[0]), one[1]),
        norm_relu(conv(x, two[0], padding=2, dilation=2), two[1]),
        norm_relu(conv(x, three[0], padding=3, dilation=3), three[1]),
        norm_relu(conv(mean, pooling[0]), pooling[1]).repeat(1, 1, 6, 5),
    ]
    projected = norm_relu(conv(torch.cat(pyramid, 1), head.project[0]), head.project[1])
    torch.testing.assert_close(head(x), conv(projected, head.classifier))


def test_aspp_concat_has_the_published_number_of_weights_and_dropout():
    with torch.device("meta"):
        head = make("aspp_concat", (6, 12, 18), in_channels=2048, num_classes=21)
    assert sum(p.numel() for p in head.parameters()) == 15_540_501
    assert [m.p for m in head.modules() if isinstance(m, nn.Dropout)] == [0.1]


def test_aspp_concat_drops_before_the_classifier_in_training():
    head = make("aspp_concat", (2,)).train()
    nn.init.ones_(head.classifier.weight)
    seen = []
    head.classifier.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    head.project.register_forward_hook(lambda *args: seen.append(args[2]))
    head(torch.randn(8, 4, 9, 9))
    projected, dropped = (t[seen[0] > 0] for t in seen)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.1, abs=0.01)
    kept = dropped > 0
    torch.testing.assert_close(dropped[kept], projected[kept] / 0.9)


def test_aspp_concat_trains_on_a_batch_of_one_with_a_warning():
    head = make("aspp_concat", (2,)).train()
    pooling = head.branches[-1][1]
    before = pooling.running_mean.clone()
    with pytest.warns(UserWarning, match="batch of one image"):
        logits = head(torch.randn(1, 4, 6, 6))
    logits.square().sum().backward()
    assert logits.isfinite().all()
    assert torch.equal(pooling.running_mean, before)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


@pytest.mark.parametrize(("training", "batch"), [(True, 2), (False, 1)])
def test_aspp_concat_warns_of_nothing_else(training, batch):
    head = make("aspp_concat", (2,)).train(training)
    pooling = head.branches[-1][1]
    before = pooling.running_mean.clone()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        head(torch.randn(batch, 4, 6, 6))
    assert torch.equal(pooling.running_mean, before) != training


@pytest.mark.parametrize(("name", "vgg"), [("aspp", False), ("aspp", True), ("aspp_concat", False)])
def test_classifiers_start_as_released_from_std_001_and_zero_bias(name, vgg):
    head = make(name, (6, 12), vgg, in_channels=256, num_classes=21)
    classifiers = [m for m in head.modules() if getattr(m, "out_channels", None) == 21]
    assert len(classifiers) == (1 if name == "aspp_concat" else 2)
    for layer in classifiers:
        assert layer.weight.std().item() == pytest.approx(0.01, rel=0.05)
        assert abs(layer.weight.mean().item()) < 1e-3
        assert not layer.bias.any()


@pytest.mark.parametrize(
    ("name", "vgg", "suffixes"),
    [("aspp", False, ("",)), ("aspp", True, ("fc8.",)), ("largefov", True, ("fc8.",))],
)
def test_new_layers_are_those_that_no_pretrained_file_holds(name, vgg, suffixes):
    rates = (6,) if name == "largefov" else (6, 12)
    head = make(name, rates, vgg)
    new = {id(p) for layer in head.new_layers() for p in layer.parameters()}
    names = {n for n, p in head.named_parameters() if id(p) in new}
    assert names == {
        f"branches.{i}.{suffix}{kind}"
        for i in range(len(rates))
        for suffix in suffixes
        for kind in ("weight", "bias")
    }


def test_all_layers_of_aspp_concat_are_new():
    head = make("aspp_concat", (6,))
    new = {id(p) for layer in head.new_layers() for p in layer.parameters()}
    assert new == {id(p) for p in head.parameters()}


@pytest.mark.parametrize(
    "rates", [(), (0,), (6, -1), (2.5,), (6.0,), (True,), ("6",), (10**20,)], ids=str
)
@pytest.mark.parametrize("name", ["aspp", "largefov", "aspp_concat", "aspp_3x3"])
def test_rates_that_are_not_positive_integers_are_refused(name, rates):
    with pytest.raises(ValueError, match="atrous_rates must be positive integers"):
        make(name, rates)


def test_thousands_of_rates_are_refused_instead_of_built():
    with pytest.raises(ValueError, match=r"has 20000 rates, at most \d+ work"):
        make("aspp", tuple(range(1, 20_001)))


@pytest.mark.parametrize("vgg", [False, True])
def test_largefov_takes_exactly_one_rate(vgg):
    with pytest.raises(ValueError, match="largefov takes one atrous rate"):
        make("largefov", (6, 12), vgg)


def test_conv1x1_takes_no_rates():
    with pytest.raises(ValueError, match=r"conv1x1 takes no atrous rates, got \[12\].*'\[\]'"):
        make("conv1x1", (12,))


@pytest.mark.parametrize("vgg", [False, True])
def test_an_unknown_head_is_refused_with_the_known_ones(vgg):
    with pytest.raises(ValueError, match=r"aspp, largefov, conv1x1, aspp_concat.*'pyramid'"):
        make("pyramid", vgg=vgg)
