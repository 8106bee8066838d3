"""Parameter groups and stochastic gradient descent as in the released solver and prototxt.

| group | what | learning rate | weight decay |
|---|---|---|---|
| backbone | pretrained weights, and all normalization in the backbone | × 1 | yes |
| backbone.bias | pretrained biases (VGG-16 only) | × 2 | no |
| head.weight | weights of layers that no pretrained file holds | × 10 | yes |
| head.bias | their biases | × 20 | no |
"""

from torch import nn
from torch.optim import SGD

from deeplab_lit.network.deeplab import DeepLabV2


def parameter_groups(
    net: DeepLabV2, *, lr: float, weight_decay: float, head_lr_mult: float
) -> list[dict]:
    """Every trainable parameter in exactly one group; groups without parameters are left out.

    Groups are told apart by the modules that own the parameters, not by their names.

    Args:
        net: the network.
        lr: base learning rate.
        weight_decay: of the groups that have one.
        head_lr_mult: of the head's weights; twice that for its biases.

    Returns:
        Groups for an optimizer: name, params, lr, weight_decay.
    """
    new = {id(p) for layer in net.head.new_layers() for p in layer.parameters()}
    biases = {
        id(m.bias)
        for m in net.modules()
        if getattr(m, "bias", None) is not None and (isinstance(m, nn.Conv2d) or id(m.bias) in new)
    }
    groups = {
        "backbone": {"lr": lr, "weight_decay": weight_decay},
        "backbone.bias": {"lr": 2 * lr, "weight_decay": 0.0},
        "head.weight": {"lr": head_lr_mult * lr, "weight_decay": weight_decay},
        "head.bias": {"lr": 2 * head_lr_mult * lr, "weight_decay": 0.0},
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


def build_sgd(
    net: DeepLabV2, *, lr: float, momentum: float, weight_decay: float, head_lr_mult: float
) -> SGD:
    """SGD over the parameter groups."""
    groups = parameter_groups(net, lr=lr, weight_decay=weight_decay, head_lr_mult=head_lr_mult)
    return SGD(groups, lr=lr, momentum=momentum)
