"""One graph for images of all sizes: the network as `torch.export` carries it away.

Preprocessing, every scale and the upsampling to the image's size are inside, so that whoever runs
the graph hands over pixels and gets logits.

Letters: B batch · C classes · H×W image.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.export import Dim, ExportedProgram
from torch.nn import functional as F

from deeplab_lit.errors import UserError
from deeplab_lit.network.deeplab import DeepLabV2

LARGEST_BATCH = 1024
LARGEST_SIDE = 8192

Run = Callable[[Tensor], Tensor]  # images (B,3,H,W) uint8 → logits (B,C,H,W)


class ExportError(UserError, ValueError):
    """A network cannot be exported as it was asked for; says why and what to do."""


def image_graph(net: DeepLabV2) -> ExportedProgram:
    """Return the network as a graph: images (B,3,H,W) uint8 RGB → logits (B,C,H,W) float32.

    B may be 1…1024, H and W anything from `smallest_side(net)` to 8192; the graph refuses others.
    It has the network's own scales, and the network is to be in eval mode.
    """
    side = smallest_side(net)
    sizes = {
        0: Dim("batch", min=1, max=LARGEST_BATCH),
        2: Dim("height", min=side, max=LARGEST_SIDE),
        3: Dim("width", min=side, max=LARGEST_SIDE),
    }
    program = torch.export.export(
        net,
        # no two equal, and none of 1: torch.export may take such for more than chance
        (torch.zeros(2, 3, side + 64, side + 99, dtype=torch.uint8),),
        dynamic_shapes={"images": sizes},
        # sizes rounded up bring along conditions that hold always, but that it cannot prove
        prefer_deferred_runtime_asserts_over_guards=True,
    )
    for node in program.graph.nodes:  # the paths of this machine's source files
        node.meta.pop("stack_trace", None)
    return program


def smallest_side(net: DeepLabV2) -> int:
    """Return the least height and width, in pixels, that the network's graph takes.

    33, or more where the smallest scale would leave a single feature cell: resizing one cell is
    another computation than resizing two.
    """
    return max(33, math.ceil((net.output_stride + 1) / min(net.scales)) + 1)


@torch.inference_mode()
def largest_difference(run: Run, net: DeepLabV2) -> float:
    """Measure how far logits are from the network's, relative to the largest of these.

    The images are blotches of 16 pixels, of three sizes, odd and even, in batches of one and two.
    Noise from pixel to pixel would not do: there the last bit of where resizing samples counts, and
    float32 itself is further from float64 than what is to be found here.

    Args:
        run: what is compared.
        net: the network, in eval mode.

    Returns:
        From 0 up; NaN where there is one in any logits.
    """
    side = smallest_side(net)
    random = torch.Generator().manual_seed(0)
    differences = []
    for batch, height, width in ((1, 0, 0), (2, 1, 30), (1, 288, 207)):
        size = side + height, side + width
        colors = 255 * torch.rand(batch, 3, *(n // 16 for n in size), generator=random)
        images = F.interpolate(colors, size, mode="bilinear").byte()
        expected = net(images)
        differences.append((run(images) - expected).abs().max() / expected.abs().max())
    return torch.stack(differences).max().item()
