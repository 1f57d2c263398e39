"""Transfer of weights between networks: of other stages, scales and kinds of branches."""

import torch
from torch import Tensor, nn

from espan.errors import InputError
from espan.networks.espan import ESPAN
from espan.networks.layers import Conv, kernel_of
from espan.networks.reparam import RepConv


@torch.no_grad()
def transfer_weights(source: ESPAN, target: ESPAN) -> list[str]:
    """Copies the layers that both networks have; returns the names of the other layers of `target`.

    The networks may be on different devices and stay there. Layers with the same parameters are
    copied bit by bit; otherwise the target's branches take the merged kernel, equal up to rounding.
    A block with fewer convolutions keeps the first ones (the removal of tail convolutions). Between
    scales, each sub-pixel of the upsampler takes the kernel of the nearest sub-pixel.
    Raises InputError if the numbers of channels differ.
    """
    if source.config["channels"] != target.config["channels"]:
        counts = source.config["channels"], target.config["channels"]
        raise InputError(f"channels: weights of {counts[0]} cannot start a network of {counts[1]}")
    layers = dict(_layers(source))
    fresh = []
    for name, layer in _layers(target):
        if name not in layers:
            fresh.append(name)
        elif name == "upsampler" and source.scale != target.scale:
            _set_kernel(layer, *_rescaled(*kernel_of(layers[name]), source.scale, target.scale))
        elif _shapes(layers[name]) == _shapes(layer):
            layer.load_state_dict(layers[name].state_dict())
        else:
            _set_kernel(layer, *kernel_of(layers[name]))
    return fresh


def _layers(net: ESPAN) -> list[tuple[str, Conv]]:
    layers: list[tuple[str, Conv]]
    layers = [("conv_1", net.conv_1), ("conv_2", net.conv_2), ("conv_cat", net.conv_cat)]
    for i, block in enumerate(net.blocks):
        layers += [(f"blocks.{i}.convs.{j}", conv) for j, conv in enumerate(block.convs)]
    return [*layers, ("upsampler", net.upsampler)]


def _shapes(layer: nn.Module) -> list[tuple[str, torch.Size]]:
    return [(key, value.shape) for key, value in layer.state_dict().items()]


def _set_kernel(layer: Conv, weight: Tensor, bias: Tensor) -> None:
    device = next(layer.parameters()).device
    weight, bias = weight.to(device), bias.to(device)
    if isinstance(layer, RepConv):
        layer.set_kernel(weight, bias)
    else:
        for mine, new in zip(kernel_of(layer), (weight, bias), strict=True):
            mine.copy_(new)


def _rescaled(weight: Tensor, bias: Tensor, before: int, after: int) -> tuple[Tensor, Tensor]:
    """Kernels (3 * before^2, C, 3, 3) and biases of an upsampler for the sub-pixels of `after`."""
    near = [int((i + 0.5) * before / after) for i in range(after)]
    pick = torch.tensor(
        [(c * before + y) * before + x for c in range(3) for y in near for x in near]
    )
    return weight[pick], bias[pick]
