"""The networks that weight files of other projects belong to, in plain functions.

Written from the released prototxt files and the ports' forward passes; nothing of deeplab_lit is
used. Weights are kept by Caffe's layer names, for B,G,R images of 0…255 minus the mean.
"""

import torch
from torch.nn import functional as F

MEAN_BGR = (104.008, 116.669, 122.675)
OTHER_MEAN_BGR = (104.00698793, 116.66876762, 122.67891434)
BLOCKS = {
    2: "abc",
    3: ["a", "b1", "b2", "b3"],
    4: ["a", *(f"b{i}" for i in range(1, 23))],
    5: "abc",
}
RATES = (6, 12, 18, 24)


def units():
    """(suffix, in, out, kernel) of each convolution with normalization of ResNet-101."""
    yield "conv1", 3, 64, 7
    width = 64
    for stage, blocks in BLOCKS.items():
        inner = 64 * 2 ** (stage - 2)
        for block in blocks:
            name = f"{stage}{block}"
            if block == "a":
                yield f"{name}_branch1", width, 4 * inner, 1
            yield f"{name}_branch2a", width, inner, 1
            yield f"{name}_branch2b", inner, inner, 3
            yield f"{name}_branch2c", inner, 4 * inner, 1
            width = 4 * inner


def conv_name(unit):
    return unit if unit == "conv1" else f"res{unit}"


def norm_names(unit):
    return (f"bn_{unit}", f"scale_{unit}") if unit == "conv1" else (f"bn{unit}", f"scale{unit}")


def random_resnet101(num_classes=21, head_channels=2048):
    """Weights by unit: (conv, mean, var, gamma, beta), and the head's four branches."""
    net = {}
    for unit, inputs, outputs, kernel in units():
        conv = torch.randn(outputs, inputs, kernel, kernel) * (2 / (inputs * kernel**2)) ** 0.5
        size = 0.02 if unit == "conv1" else 0.15 if unit.endswith("2c") else 1.0
        norm = torch.randn(outputs) * 0.1, torch.rand(outputs) + 0.5
        affine = size * (0.5 + torch.rand(outputs)), torch.randn(outputs) * 0.1
        net[unit] = (conv, *norm, *affine)
    net["head"] = random_head(num_classes, head_channels)
    return net


def random_head(num_classes, channels):
    shape = (num_classes, channels, 3, 3)
    return [(torch.randn(shape) * 0.01 * (i + 1.5), torch.randn(num_classes)) for i in range(4)]


def preprocess(images, mean_bgr=MEAN_BGR):
    """(B,3,H,W) RGB uint8 → BGR minus the mean."""
    return images.float()[:, [2, 1, 0]] - torch.tensor(mean_bgr).view(1, 3, 1, 1)


def pool(x, stride):
    """Caffe's max pooling, kernel 3, padding 1: sizes are rounded up."""
    pad = [0, 0]
    for i, n in enumerate((x.shape[-1], x.shape[-2])):
        size = -((n + 2 - 3) // -stride) + 1
        size -= (size - 1) * stride >= n + 1
        pad[i] = (size - 1) * stride + 3 - 1 - n
    x = F.pad(x, (1, max(pad[0], 0), 1, max(pad[1], 0)), value=float("-inf"))
    return F.max_pool2d(x, 3, stride)


def unit(net, name, x, stride=1, dilation=1):
    conv, mean, var, gamma, beta = (v.view(1, -1, 1, 1) if v.ndim == 1 else v for v in net[name])
    x = F.conv2d(
        x, conv, stride=stride, padding=dilation * (conv.shape[-1] // 2), dilation=dilation
    )
    return (x - mean) / (var + 1e-5).sqrt() * gamma + beta


def features(net, x):
    """Preprocessed images → res5c."""
    x = pool(unit(net, "conv1", x, stride=2).relu(), 2)
    for stage, blocks in BLOCKS.items():
        dilation = {4: 2, 5: 4}.get(stage, 1)
        for block in blocks:
            name = f"{stage}{block}"
            stride = 2 if name == "3a" else 1  # on the 1×1
            y = unit(net, f"{name}_branch2a", x, stride=stride).relu()
            y = unit(net, f"{name}_branch2b", y, dilation=dilation).relu()
            y = unit(net, f"{name}_branch2c", y)
            x = (unit(net, f"{name}_branch1", x, stride=stride) if block == "a" else x) + y
            x = x.relu()
    return x


def aspp(head, x, branches=4):
    return sum(
        F.conv2d(x, weight, bias, padding=rate, dilation=rate)
        for (weight, bias), rate in list(zip(head, RATES, strict=True))[:branches]
    )


def interpolate(x, size, positions):
    """Bilinear, one axis after the other; `positions`: (in, out) → where to look."""
    for axis, out in zip((2, 3), size, strict=True):
        n = x.shape[axis]
        where = positions(n, out).clamp(0, n - 1)
        low = where.floor().long()
        high = (low + 1).clamp(max=n - 1)
        share = (where - low).to(x.dtype).view([-1, 1] if axis == 2 else [-1])
        x = x.index_select(axis, low) * (1 - share) + x.index_select(axis, high) * share
    return x


def aligned(n, out):
    return torch.arange(out, dtype=torch.float64) * ((n - 1) / (out - 1) if out > 1 else 0)


def half_pixel(n, out):
    return (torch.arange(out, dtype=torch.float64) + 0.5) * n / out - 0.5


def caffe_interp(x, *, shrink=1, zoom=1):
    """The authors' Interp layer, its rule for sizes included."""
    size = [(n - 1) // shrink + 1 for n in x.shape[-2:]]
    return interpolate(x, [n + (n - 1) * (zoom - 1) for n in size], aligned)


def caffe_msc(network, x):
    """The authors' three scales around a network, at 32k + 1 pixels."""
    one = network(x)
    half, most = network(caffe_interp(x, shrink=2)), network(caffe_interp(x, shrink=4, zoom=3))
    half, most = caffe_interp(half, zoom=2), caffe_interp(most, shrink=3, zoom=4)
    assert half.shape == most.shape == one.shape  # Eltwise refuses anything else
    return torch.max(torch.max(one, most), half)


def caffe_resnet101(net, images, *, multi_scale):
    """fc_fusion, or fc1_voc12 where there is one scale."""

    def network(x):
        return aspp(net["head"], features(net, x))

    x = preprocess(images)
    return caffe_msc(network, x) if multi_scale else network(x)


def kazuto1011(net, images, *, multi_scale):
    """libs/models/msc.py in evaluation."""
    x = preprocess(images)
    all_logits = [aspp(net["head"], features(net, x))]
    for scale in (0.5, 0.75) if multi_scale else ():
        size = [int(n * scale) for n in x.shape[-2:]]
        logits = aspp(net["head"], features(net, interpolate(x, size, half_pixel)))
        all_logits.append(interpolate(logits, all_logits[0].shape[-2:], half_pixel))
    return torch.stack(all_logits).amax(0)


def isht7(net, images):
    """MS_Deeplab, for squares: what its evaluation pads images to."""
    x = preprocess(images)
    n = x.shape[-1]
    assert x.shape[-2] == n
    half = -(-((n + 1) // 2 + 1) // 2)
    grid = [(half + 1) // 2] * 2
    out = []
    for size in (n, int(n * 0.75) + 1, int(n * 0.5) + 1):
        scaled = x if size == n else interpolate(x, [size, size], aligned)
        logits = aspp(net["head"], features(net, scaled))
        out.append(logits if size == n else interpolate(logits, grid, aligned))
    return torch.max(torch.max(out[0], out[1]), out[2])


def adaptsegnet(net, images, *, branches, multi_scale=False):
    """ResNet of model/deeplab.py, or the second output of model/deeplab_multi.py.

    It has no multi-scale inputs of its own; `multi_scale` puts the authors' around it.
    """

    def network(x):
        return aspp(net["head"], features(net, x), branches)

    x = preprocess(images, OTHER_MEAN_BGR)
    return caffe_msc(network, x) if multi_scale else network(x)


VGG_LAYERS = ("1_1", "1_2", "2_1", "2_2", *(f"{i}_{j}" for i in (3, 4, 5) for j in (1, 2, 3)))
VGG_WIDTHS = {1: 64, 2: 128, 3: 256, 4: 512, 5: 512}


def random_vgg16(num_classes=21, branches=4):
    """Weights by Caffe's layer name: (weight, bias)."""
    net, width = {}, 3
    for name in VGG_LAYERS:
        net[f"conv{name}"] = random_conv(width, width := VGG_WIDTHS[int(name[0])], 3)
    net["conv1_1"] = (net["conv1_1"][0] * 0.02, net["conv1_1"][1])
    for i in range(1, branches + 1):
        suffix = f"_{i}" if branches > 1 else ""
        net[f"fc6{suffix}"] = random_conv(512, 1024, 3)
        net[f"fc7{suffix}"] = random_conv(1024, 1024, 1)
        net[f"fc8_voc12{suffix}"] = random_conv(1024, num_classes, 1)
    return net


def random_conv(inputs, outputs, kernel):
    weight = torch.randn(outputs, inputs, kernel, kernel) * (2 / (inputs * kernel**2)) ** 0.5
    return weight, torch.randn(outputs) * 0.1


def caffe_vgg16(net, images, *, multi_scale=False):
    """fc8_voc12 of the ASPP net, or of LargeFOV where there is one branch.

    It has no multi-scale inputs of its own; `multi_scale` puts those of the ResNet around it.
    """
    x = preprocess(images)
    return caffe_msc(lambda x: vgg16(net, x), x) if multi_scale else vgg16(net, x)


def vgg16(net, x):
    for i, name in enumerate(VGG_LAYERS):
        rate = 2 if name[0] == "5" else 1
        x = F.conv2d(x, *net[f"conv{name}"], padding=rate, dilation=rate).relu()
        if i + 1 == len(VGG_LAYERS) or VGG_LAYERS[i + 1][0] != name[0]:
            x = pool(x, 1 if name[0] in "45" else 2)
    if "fc6" in net:
        x = F.conv2d(x, torch.full((512, 1, 3, 3), 1 / 9), padding=1, groups=512)  # pool5a
        return _branch(net, "", x, 12)
    return sum(_branch(net, f"_{i}", x, rate) for i, rate in enumerate(RATES, start=1))


def _branch(net, suffix, x, rate):
    x = F.conv2d(x, *net[f"fc6{suffix}"], padding=rate, dilation=rate).relu()
    x = F.conv2d(x, *net[f"fc7{suffix}"]).relu()
    return F.conv2d(x, *net[f"fc8_voc12{suffix}"])


OWN_RATES = (2, 4)


def random_own(num_classes=21):
    """Weights by the names of a checkpoint of ours: resnet10_quarter, ASPP with rates 2 and 4."""
    net = {f"preprocess.{name}": torch.rand(1, 3, 1, 1) * 50 + 50 for name in ("mean", "std")}

    def layer(conv, norm, inputs, outputs, kernel):
        net[f"backbone.{conv}.weight"] = random_conv(inputs, outputs, kernel)[0]
        for name in ("weight", "running_var"):
            net[f"backbone.{norm}.{name}"] = torch.rand(outputs) + 0.5
        for name in ("bias", "running_mean"):
            net[f"backbone.{norm}.{name}"] = torch.randn(outputs) * 0.1

    layer("conv1", "bn1", 3, 16, 7)
    for i, width in enumerate((16, 32, 64, 128), start=1):
        place, inputs = f"layer{i}.0", width if i == 1 else width // 2
        layer(f"{place}.conv1", f"{place}.bn1", inputs, width, 3)
        layer(f"{place}.conv2", f"{place}.bn2", width, width, 3)
        if i > 1:
            layer(f"{place}.downsample.0", f"{place}.downsample.1", inputs, width, 1)
    for k in range(len(OWN_RATES)):
        weight, bias = random_conv(128, num_classes, 3)
        net |= {f"head.branches.{k}.weight": weight, f"head.branches.{k}.bias": bias}
    return net


def own_network(net, images, *, multi_scale):
    """At stride 8: the strides of layer3 and layer4 became rates of what follows them."""

    def layer(conv, norm, x, **options):
        x = F.conv2d(x, net[f"backbone.{conv}.weight"], **options)
        mean, var, weight, bias = (
            net[f"backbone.{norm}.{name}"].view(1, -1, 1, 1)
            for name in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * weight + bias

    def network(x):
        x = F.max_pool2d(layer("conv1", "bn1", x, stride=2, padding=3).relu(), 3, 2, 1)
        for i, stride, before, after in ((1, 1, 1, 1), (2, 2, 1, 1), (3, 1, 1, 2), (4, 1, 2, 4)):
            place = f"layer{i}.0"
            y = layer(
                f"{place}.conv1", f"{place}.bn1", x, stride=stride, padding=before, dilation=before
            )
            y = layer(f"{place}.conv2", f"{place}.bn2", y.relu(), padding=after, dilation=after)
            if i > 1:
                x = layer(f"{place}.downsample.0", f"{place}.downsample.1", x, stride=stride)
            x = (x + y).relu()
        return sum(
            F.conv2d(
                x,
                net[f"head.branches.{k}.weight"],
                net[f"head.branches.{k}.bias"],
                padding=rate,
                dilation=rate,
            )
            for k, rate in enumerate(OWN_RATES)
        )

    x = (images.float() - net["preprocess.mean"]) / net["preprocess.std"]
    return caffe_msc(network, x) if multi_scale else network(x)
