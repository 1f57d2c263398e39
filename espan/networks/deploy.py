"""Folded networks ready to run: a copy on a device, in a dtype."""

import torch

from espan.networks.layers import Conv2d
from espan.networks.network import Network


def copy_to(net: Network, device: torch.device, dtype: torch.dtype, tf32: bool = False) -> Network:
    """A folded network of the same weights, ready to run: eval mode, channels last, no gradient.

    In float32 a GPU multiplies its convolutions in TF32 only if `tf32`, whatever PyTorch's switch
    says.
    """
    copy = type(net)(**net.config)
    copy.load_state_dict(net.state_dict())
    for layer in convolutions(copy):
        layer.tf32 = tf32
    copy = copy.eval().requires_grad_(False)
    ready: Network = copy.to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]  # of torch
    return ready


def convolutions(net: Network) -> list[Conv2d]:
    """The plain convolutions of a network, in the order of its modules."""
    return [layer for layer in net.modules() if isinstance(layer, Conv2d)]


def allows_tf32(net: Network) -> bool:
    """Whether a GPU may multiply its float32 convolutions in TF32."""
    return any(layer.tf32 for layer in convolutions(net))
