"""Copies of folded networks for inference, on a device and in a dtype."""

import torch

from espan.networks.layers import Conv2d
from espan.networks.network import Network


def copy_to(net: Network, device: torch.device, dtype: torch.dtype, tf32: bool = False) -> Network:
    """A copy of a folded network for inference: eval mode, channels last, no gradient.

    tf32: whether float32 convolutions on a GPU use TF32; PyTorch's global switch is ignored.
    """
    copy = type(net)(**net.config)
    copy.load_state_dict(net.state_dict())
    for layer in convolutions(copy):
        layer.tf32 = tf32
    copy = copy.eval().requires_grad_(False)
    ready: Network = copy.to(device, dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]  # of torch
    return ready


def convolutions(net: Network) -> list[Conv2d]:
    """The plain convolutions of a network, in module order."""
    return [layer for layer in net.modules() if isinstance(layer, Conv2d)]


def allows_tf32(net: Network) -> bool:
    """Whether float32 convolutions on a GPU may use TF32."""
    return any(layer.tf32 for layer in convolutions(net))
