"""The levels at which an image without labels is learned from: each head's class probabilities.

"main" is the network's head, "aux" the auxiliary one (conv4 in the papers), where there is one.
"""

from torch import Tensor

from deeplab_lit.network.deeplab import DeepLabV2
from deeplab_lit.network.multiscale import ScaleLogits, resize

USUAL_AUX = 0.0002  # AdaptSegNet's and ADVENT's weight of the level "aux"


def by_level(net: DeepLabV2, name: str, main: float, aux: float) -> dict[str, float]:
    """Return the weight of each level that a network has.

    Args:
        net: with or without an auxiliary head.
        name: of the weights' options, without "_main" and "_aux".
        main: weight of the network's head.
        aux: weight of the auxiliary head.

    Raises:
        ValueError: a weight out of range; or one of an auxiliary head that is not there.
    """
    for level, weight in (("main", main), ("aux", aux)):
        if not 0 <= weight < float("inf"):
            raise ValueError(f"{name}_{level} is out of range: {weight}, expected 0 or more")
    if net.aux_head is not None:
        return {"main": main, "aux": aux}
    if aux != USUAL_AUX:
        raise ValueError(
            f"{name}_aux is {aux}, but the network has no auxiliary head: set --model.aux_head "
            "true, or leave it out"
        )
    return {"main": main}


def level_logits(net: DeepLabV2, images: Tensor) -> dict[str, ScaleLogits]:
    """Return the logits of images (B,3,H,W) at each level that a network has."""
    if net.aux_head is None:
        return {"main": net.logits(images)}
    main, aux = net.logits_and_aux(images)
    return {"main": main, "aux": aux}


def level_probabilities(
    net: DeepLabV2, logits: dict[str, ScaleLogits], images: Tensor
) -> dict[str, Tensor]:
    """Return the class probabilities at each level, (B,C,H,W) float32.

    Logits, not probabilities, are brought to the images' size, as in the papers' code.

    Args:
        net: says by which convention grids and images match.
        logits: of the images, by level.
        images: (B,3,H,W).
    """
    size, align = images.shape[-2:], net.align_corners
    return {
        level: resize(of_level.fused.float(), size, align_corners=align).softmax(1)
        for level, of_level in logits.items()
    }
