"""Where training starts: weights scaled on real pictures, a gate half open, nearest upsampling.

There is no global skip in the network and the gate multiplies small signals, so PyTorch's default
initialisation lets almost no gradient through (docs/method.md has the measurements).
"""

from collections.abc import Iterator
from contextlib import suppress

import torch
from torch import Tensor, nn

from espan.errors import InputError
from espan.networks.espan import ESPAN
from espan.networks.layers import Conv, kernel_of
from espan.networks.reparam import Link, RepConv, links_of

STD = 1.0  # of every conv's output on a real batch
STD_UP = 0.1  # of the last conv's: the residual on top of nearest upsampling
# Bias of a block's last conv: sigmoid(2) - 1/2 = 0.38, so that blocks begin nearly linear.
GATE_BIAS = 2.0


class _ReachedError(Exception):
    """Thrown by a hook to stop a forward pass at the layer under way."""


@torch.no_grad()
def initialise(net: ESPAN, pictures: Tensor) -> None:
    """Sets the weights of `net`, in place, from a batch (N, 3, H, W) of real LR pictures.

    Kaiming-normal, then layer by layer rescaled so that its output has the standard deviation
    above; then channels 0..2 carry the picture past the blocks, so that the network begins as
    nearest upsampling plus a small residual. The architecture has the path: no layer is added.
    """
    for layer in _convolutions(net):
        for conv in _parts(layer):
            # A 1x1 that widens a chain starts as an isometry: the chain is then as well
            # conditioned as the kernel it ends in.
            widens = conv.kernel_size[0] == 1 and conv.out_channels > conv.in_channels
            weight, bias = kernel_of(conv)
            (nn.init.orthogonal_ if widens else nn.init.kaiming_normal_)(weight)
            nn.init.zeros_(bias)
    gates = {block.convs[-1] for block in net.blocks}
    for layer in _convolutions(net):
        factor = (STD_UP if layer is net.upsampler else STD) / _output(net, layer, pictures).std()
        for last in _ends(layer, -1):
            last.weight.mul_(factor)
        if layer in gates:
            last_bias = _ends(layer, -1)[0].bias
            assert last_bias is not None  # every layer is made with one
            last_bias.add_(GATE_BIAS)
    _carry_picture(net)


def _carry_picture(net: ESPAN) -> None:
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
    """In the order in which the network runs them."""
    yield net.conv_1
    for block in net.blocks:
        yield from block.convs
    yield from (net.conv_2, net.conv_cat, net.upsampler)


def _output(net: ESPAN, layer: nn.Module, pictures: Tensor) -> Tensor:
    """What a layer makes of the pictures."""
    outputs: list[Tensor] = []

    def stop(_module: nn.Module, _inputs: tuple[Tensor, ...], output: Tensor) -> None:
        outputs.append(output)
        raise _ReachedError

    handle = layer.register_forward_hook(stop)
    with suppress(_ReachedError):
        net(pictures)
    handle.remove()
    return outputs[0]


def _parts(layer: nn.Module) -> list[nn.Conv2d]:
    return [m for m in layer.modules() if isinstance(m, nn.Conv2d)]


def _ends(layer: Conv, end: int) -> list[Link]:
    """The first (0) or last (-1) links of the branches, those with something to learn."""
    if not isinstance(layer, RepConv):
        return [layer]
    links = (links_of(chain)[end] for chain in layer.branches)
    return [link for link in links if any(True for _ in link.parameters())]


def _centre_tap(layer: Conv) -> Tensor:
    """(out, in) view of the centre tap of the conv, or of the branch that is a single conv."""
    if isinstance(layer, RepConv):
        single = [chain[0] for chain in layer.branches if len(chain) == 1]
        convs = [link for link in single if isinstance(link, nn.Conv2d)]
        if not convs:
            raise InputError("rep: training starts from a branch of one convolution, '1' or 'k'")
        layer = convs[0]
    middle = layer.weight.shape[-1] // 2
    return layer.weight[:, :, middle, middle]
