"""Choose what learns, and how fast: frozen parts, parameter groups and their optimizer.

The groups are those of the released solver and prototxt:

| group | what | learning rate | weight decay |
|---|---|---|---|
| backbone | pretrained weights, and all normalization in the backbone | × 1 | yes |
| backbone.bias | pretrained biases (VGG-16 only) | × 2 | no |
| head.weight | weights of layers that no pretrained file holds, in both heads | × 10 | yes |
| head.bias | their biases | × 20 | no |

Networks in PyTorch mostly treat biases like weights: `bias_lr_mult` 1 and `bias_weight_decay`.
"""

import inspect
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Optimizer

from deeplab_lit.errors import UserError
from deeplab_lit.network.deeplab import DeepLabV2

OptimizerFactory = Callable[[list[dict[str, Any]]], Optimizer]  # parameter groups → optimizer
MOMENTUM = 0.9  # the authors'
PARTS = ("backbone", "head", "aux_head")  # of the network, that can be frozen


def parameter_groups(
    net: DeepLabV2,
    *,
    lr: float,
    weight_decay: float,
    head_lr_mult: float,
    bias_lr_mult: float = 2.0,
    bias_weight_decay: bool = False,
) -> list[dict[str, Any]]:
    """Put every trainable parameter into exactly one group; leave out groups without parameters.

    Groups are told apart by the modules that own the parameters, not by their names.

    Args:
        net: the network.
        lr: base learning rate.
        weight_decay: of the groups that have one.
        head_lr_mult: of the heads' weights.
        bias_lr_mult: of biases, relative to the weights beside them.
        bias_weight_decay: biases have the weights' decay; else none.

    Returns:
        Groups for an optimizer: name, params, lr, weight_decay.
    """
    heads = [head for head in (net.head, net.aux_head) if head is not None]
    new = {id(p) for head in heads for layer in head.new_layers() for p in layer.parameters()}
    biases = {
        id(m.bias)
        for m in net.modules()
        if getattr(m, "bias", None) is not None and (isinstance(m, nn.Conv2d) or id(m.bias) in new)
    }
    bias_decay = weight_decay if bias_weight_decay else 0.0
    groups = {
        "backbone": {"lr": lr, "weight_decay": weight_decay},
        "backbone.bias": {"lr": bias_lr_mult * lr, "weight_decay": bias_decay},
        "head.weight": {"lr": head_lr_mult * lr, "weight_decay": weight_decay},
        "head.bias": {"lr": bias_lr_mult * head_lr_mult * lr, "weight_decay": bias_decay},
    }
    members: dict[str, list[nn.Parameter]] = {name: [] for name in groups}
    for parameter in net.parameters():
        if not parameter.requires_grad:
            continue
        is_bias = id(parameter) in biases
        if id(parameter) in new:
            members["head.bias" if is_bias else "head.weight"].append(parameter)
        else:
            members["backbone.bias" if is_bias else "backbone"].append(parameter)
    return [{"name": k, "params": members[k], **v} for k, v in groups.items() if members[k]]


def build_optimizer(
    groups: list[dict[str, Any]],
    factory: OptimizerFactory | None = None,
    momentum: float = MOMENTUM,
) -> Optimizer:
    """Build the optimizer of parameter groups.

    Args:
        groups: as `parameter_groups` returns them.
        factory: makes another optimizer of them. None: stochastic gradient descent.
        momentum: of stochastic gradient descent.
    """
    return (
        SGD(groups, lr=groups[0]["lr"], momentum=momentum) if factory is None else factory(groups)
    )


def freeze_parts(net: DeepLabV2, names: str | Sequence[str] | None) -> list[nn.Module]:
    """Exclude parts of a network from training: their parameters get no gradients.

    Args:
        net: changed in place.
        names: of parts: "backbone", "head", "aux_head", or one inside, as "layer1",
            "backbone.layer1" or "features.0"; None: no part.

    Returns:
        The parts, which should be in eval mode while the others train.

    Raises:
        ValueError: there is no such part, or nothing is left to train.
    """
    # a part may be without parameters, like normalization that is frozen already
    parts = {n: m for n, m in net.named_modules() if n.partition(".")[0] in PARTS}
    frozen = []
    for name in [names] if isinstance(names, str) else names or ():
        part = parts.get(f"backbone.{name}", parts.get(name)) if name else None
        if part is None or not part.state_dict():
            inner = ", ".join(n for n, part in net.backbone.named_children() if part.state_dict())
            raise ValueError(
                f"freeze is {name!r}: the network has no such part with weights. There are "
                f"backbone, head and, in the backbone, {inner}"
            )
        frozen.append(part.requires_grad_(requires_grad=False))
    if not any(p.requires_grad for p in net.parameters()):
        raise ValueError(f"freeze is {names}: nothing is left to train")
    return frozen


def check_aux_head(net: DeepLabV2, optimizer: Optimizer, module: str) -> None:
    """Refuse a step in which the auxiliary head, where there is one, has no part.

    It would stay random; and several processes would wait for its gradients.

    Args:
        net: after the backward pass.
        optimizer: about to step.
        module: name of the class that trains, for the message.

    Raises:
        UserError: says which module, and what to do.
    """
    if net.aux_head is None:
        return
    stepped = {id(p) for group in optimizer.param_groups for p in group["params"]}
    trained = [p for p in net.aux_head.parameters() if id(p) in stepped]
    if trained and all(p.grad is None for p in trained):
        raise UserError(
            f"{module} trains the network without its auxiliary head: take the loss from "
            "labeled_loss or the logits from net.logits_and_aux, or leave out --model.aux_head"
        )


def check_rates(
    lr: float,
    momentum: float,
    weight_decay: float,
    head_lr_mult: float,
    bias_lr_mult: float = 2.0,
    aux_weight: float = 0.1,
) -> None:
    """Refuse numbers with which nothing can be trained.

    Raises:
        ValueError: which one, its value and its range.
    """
    in_range = {
        "lr": (lr, "0 or more", 0 <= lr < math.inf),
        "momentum": (momentum, "0 or more, below 1", 0 <= momentum < 1),
        "weight_decay": (weight_decay, "0 or more", 0 <= weight_decay < math.inf),
        "head_lr_mult": (head_lr_mult, "0 or more", 0 <= head_lr_mult < math.inf),
        "bias_lr_mult": (bias_lr_mult, "0 or more", 0 <= bias_lr_mult < math.inf),
        "aux_weight": (aux_weight, "0 or more", 0 <= aux_weight < math.inf),
    }
    for name, (value, expected, right) in in_range.items():
        if not right:
            raise ValueError(f"{name} is out of range: {value}, expected {expected}")
    largest_rate = lr * max(head_lr_mult, 1) * max(bias_lr_mult, 1)
    if max(largest_rate, aux_weight, weight_decay) > torch.finfo(torch.float32).max:
        raise ValueError(
            f"lr {lr}, head_lr_mult {head_lr_mult}, bias_lr_mult {bias_lr_mult}, weight_decay "
            f"{weight_decay} or aux_weight {aux_weight} is out of range: larger than float32 holds"
        )


def check_optimizer(factory: OptimizerFactory, momentum: float) -> dict[str, Any]:
    """Describe an optimizer; refuse options that its parameter groups override: set in vain.

    Args:
        factory: of the optimizer.
        momentum: of the default optimizer, which does not reach this one.

    Returns:
        Its class path, as "class", and its options beside the groups' learning rates and decays,
        those that are plain data.

    Raises:
        ValueError: an option out of range or set in vain; or the optimizer takes no groups.
    """
    groups = [{"params": [nn.Parameter(torch.zeros(1))], "lr": 0.1} for _ in range(2)]
    optimizer = factory(groups)
    label, signature = type(optimizer).__name__, inspect.signature(type(optimizer)).parameters
    if momentum != MOMENTUM:
        raise ValueError(
            f"momentum is {momentum}, but the optimizer is {label}, which does not use it: leave "
            "it out. Options of an optimizer follow its name, as --model.optimizer.momentum for SGD"
        )
    for name in ("lr", "weight_decay"):
        default = signature[name].default if name in signature else None
        if optimizer.defaults.get(name, default) != default:
            raise ValueError(
                f"optimizer.{name} is {optimizer.defaults[name]}, but every parameter group has "
                f"its own, from {name}: set --model.{name} instead"
            )
    named = {k: v for k, v in optimizer.defaults.items() if k not in ("lr", "weight_decay")}
    options = {k: v for k, v in named.items() if is_plain(v)}
    return {"class": f"{type(optimizer).__module__}.{label}", **options}


def is_plain(value: Any) -> bool:
    """Return whether a value is a number or text, or lists and dictionaries of them."""
    if isinstance(value, dict):
        return all(map(is_plain, (*value, *value.values())))
    if isinstance(value, list | tuple):
        return all(map(is_plain, value))
    return value is None or type(value) in (bool, int, float, str)
