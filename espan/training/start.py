"""Initialisation: weights scaled on real images, half-open gates, nearest upsampling.

The network has no global skip connection and its gates multiply small signals, so PyTorch's default
initialisation passes almost no gradient (docs/method.md has the measurements).
"""

from collections.abc import Iterator
from contextlib import suppress

import torch
from torch import Tensor, nn

from espan.errors import InputError
from espan.networks.espan import ESPAN
from espan.networks.layers import Conv, kernel_of
from espan.networks.reparam import Link, RepConv, links_of

STD = 1.0  # of the output of each convolution on a real batch
STD_UP = 0.1  # of the output of the last one: the residual on top of nearest upsampling
# Bias of the last convolution of a block: sigmoid(2) - 1/2 = 0.38, so blocks start nearly linear.
GATE_BIAS = 2.0


class _ReachedError(Exception):
    """Raised by a hook to stop a forward pass after a layer."""


@torch.no_grad()
def initialise(net: ESPAN, images: Tensor) -> None:
    """Initialises `net` in place, with a batch (N, 3, H, W) of real LR images.

    Kaiming-normal, rescaled layer by layer to the output's standard deviation above. Then channels
    0..2 pass the image around the blocks, so that the network starts as nearest upsampling plus a
    small residual. Uses existing connections; adds no layers.
    """
    for layer in _convolutions(net):
        for conv in _parts(layer):
            # A 1x1 that widens a chain starts as an isometry, so that the chain is as well
            # conditioned as its last kernel.
            widens = conv.kernel_size[0] == 1 and conv.out_channels > conv.in_channels
            weight, bias = kernel_of(conv)
            (nn.init.orthogonal_ if widens else nn.init.kaiming_normal_)(weight)
            nn.init.zeros_(bias)
    gates = {block.convs[-1] for block in net.blocks}
    for layer in _convolutions(net):
        factor = (STD_UP if layer is net.upsampler else STD) / _output(net, layer, images).std()
        for last in _ends(layer, -1):
            last.weight.mul_(factor)
        if layer in gates:
            last_bias = _ends(layer, -1)[0].bias
            assert last_bias is not None  # all layers have one
            last_bias.add_(GATE_BIAS)
    _pass_image_through(net)


def _pass_image_through(net: ESPAN) -> None:
    for last in _ends(net.conv_1, -1):
        last.weight[:3] = 0
    net.conv_cat.weight[:3] = 0
    for part in _ends(net.upsampler, 0):
        part.weight[:, :3] = 0
    head, up = _centre_tap(net.conv_1), _centre_tap(net.upsampler)
    sub_pixels = net.scale**2
    for c in range(3):
        head[c, c] = 1
        net.conv_cat.weight[c, c] = 1
        up[c * sub_pixels : (c + 1) * sub_pixels, c] = 1


def _convolutions(net: ESPAN) -> Iterator[Conv]:
    """The convolutions in execution order."""
    yield net.conv_1
    for block in net.blocks:
        yield from block.convs
    yield from (net.conv_2, net.conv_cat, net.upsampler)


def _output(net: ESPAN, layer: nn.Module, images: Tensor) -> Tensor:
    """The output of a layer for these images."""
    outputs: list[Tensor] = []

    def stop(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        outputs.append(output)
        raise _ReachedError

    handle = layer.register_forward_hook(stop)
    with suppress(_ReachedError):
        net(images)
    handle.remove()
    return outputs[0]


def _parts(layer: nn.Module) -> list[nn.Conv2d]:
    return [m for m in layer.modules() if isinstance(m, nn.Conv2d)]


def _ends(layer: Conv, end: int) -> list[Link]:
    """The first (0) or last (-1) links of the branches, if they have parameters."""
    if not isinstance(layer, RepConv):
        return [layer]
    links = (links_of(chain)[end] for chain in layer.branches)
    return [link for link in links if any(True for _ in link.parameters())]


def _centre_tap(layer: Conv) -> Tensor:
    """View (out, in) of the centre tap of the convolution, or of a branch of one convolution."""
    if isinstance(layer, RepConv):
        single = [chain[0] for chain in layer.branches if len(chain) == 1]
        convs = [link for link in single if isinstance(link, nn.Conv2d)]
        if not convs:
            raise InputError("rep: training starts from a branch of one convolution, '1' or 'k'")
        layer = convs[0]
    middle = layer.weight.shape[-1] // 2
    return layer.weight[:, :, middle, middle]
