"""The random networks of source_networks.py, laid out as each project writes them."""

import torch
from source_networks import BLOCKS, conv_name, norm_names, units

FACTOR = 999.98  # what Caffe multiplies its running statistics by, after long training


def caffe_layers(net, *, multi_scale=True, head="fc1_voc12"):
    """Layer → blobs of the ResNet-101 release; copies for the other scales where there are any."""
    layers = {}
    for unit, *_ in units():
        conv, mean, var, gamma, beta = net[unit]
        norm, scale = norm_names(unit)
        layers[conv_name(unit)] = [conv]
        layers[norm] = [mean * FACTOR, var * FACTOR, torch.tensor([FACTOR])]
        layers[scale] = [gamma, beta]
    for k, branch in enumerate(net.get("head", ())):
        layers[f"{head}_c{k}"] = list(branch)
    if multi_scale:  # a few, and smaller, to save time
        for name in ("conv1", "bn_conv1", "res2a_branch1", "scale2a_branch1", "fc1_voc12_c0"):
            for scale in ("res075", "res05"):
                layers[f"{name}_{scale}"] = [torch.randn(3)]
    return layers


def _norm(name, values, counters):
    mean, var, gamma, beta = values
    entries = {"weight": gamma, "bias": beta, "running_mean": mean, "running_var": var}
    if counters:
        entries["num_batches_tracked"] = torch.tensor(20000)
    return {f"{name}.{key}": value for key, value in entries.items()}


def kazuto1011_state(net, *, base="base.", counters=True):
    parts = {"branch1": "shortcut", "branch2a": "reduce", "branch2b": "conv3x3"}
    parts["branch2c"] = "increase"
    state = {}
    for unit, *_ in units():
        place = "layer1.conv1"
        if unit != "conv1":
            block, _, branch = unit.partition("_")
            number = list(BLOCKS[int(block[0])]).index(block[1:]) + 1
            place = f"layer{block[0]}.block{number}.{parts[branch]}"
        conv, *norm = net[unit]
        state[f"{base}{place}.conv.weight"] = conv
        state |= _norm(f"{base}{place}.bn", norm, counters)
    for k, (weight, bias) in enumerate(net.get("head", ())):
        state |= {f"{base}aspp.c{k}.weight": weight, f"{base}aspp.c{k}.bias": bias}
    return state


def torchvision_state(net, *, prefix="", counters=False):
    """The backbone in torchvision's names."""
    state = {}
    for unit, *_ in units():
        conv_place, norm_place = "conv1", "bn1"
        if unit != "conv1":
            block, _, branch = unit.partition("_")
            number = list(BLOCKS[int(block[0])]).index(block[1:])
            place = f"layer{int(block[0]) - 1}.{number}"
            last = "abc".index(branch[-1]) + 1 if branch != "branch1" else 0
            conv_place = f"{place}.conv{last}" if last else f"{place}.downsample.0"
            norm_place = f"{place}.bn{last}" if last else f"{place}.downsample.1"
        conv, *norm = net[unit]
        state[f"{prefix}{conv_place}.weight"] = conv
        state |= _norm(f"{prefix}{norm_place}", norm, counters)
    return state


def conv2d_list(layer, head):
    """A head as isht7 and AdaptSegNet write it; `layer`: with its prefix."""
    state = {}
    for k, (weight, bias) in enumerate(head):
        state[f"{layer}.conv2d_list.{k}.weight"] = weight
        state[f"{layer}.conv2d_list.{k}.bias"] = bias
    return state
