"""The layers of the SPAN family: plain or re-parameterised convolutions and attention blocks."""

from typing import TypeAlias

import torch.nn.functional as F
from torch import Tensor, nn

from espan.networks.lists import LayerList
from espan.networks.reparam import RepConv
from espan_kernels import span_gate
from espan_kernels.convolution import conv2d


class Conv2d(nn.Conv2d):
    """`nn.Conv2d` with its own TF32 setting.

    tf32: whether a GPU may use TF32; None follows PyTorch's global switch, as in training.
    """

    tf32: bool | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.tf32 is None:
            return super().forward(x)
        return conv2d(x, self.weight, self.bias, int(self.padding[0]), tf32=self.tf32)


Conv: TypeAlias = nn.Conv2d | RepConv


def conv(in_channels: int, out_channels: int, kernel: int, rep: str | None) -> Conv:
    """A convolution that keeps H x W: re-parameterised by `rep`, or plain if `rep` is None."""
    if rep is None:
        return Conv2d(in_channels, out_channels, kernel, padding=kernel // 2)
    return RepConv(in_channels, out_channels, kernel, rep)


def kernel_of(layer: Conv) -> tuple[Tensor, Tensor]:
    """Returns (weight, bias) of the single convolution that equals the layer."""
    if isinstance(layer, RepConv):
        return layer.merged()
    assert layer.bias is not None  # all layers have one
    return layer.weight, layer.bias


class SPAB(nn.Module):
    """Swift parameter-free attention block: convolutions with SiLU between them, then the gate.

    x (N, channels, H, W) -> same shape. The gate contains the only residual connection.
    """

    def __init__(self, channels: int, convs: int = 3, rep: str | None = None):
        super().__init__()
        self.convs: LayerList[Conv] = LayerList(
            conv(channels, channels, 3, rep) for _ in range(convs)
        )

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for layer in self.convs[:-1]:
            h = F.silu(layer(h))
        return span_gate(x, self.convs[-1](h))

    def with_first(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Returns (output, SiLU of the first of three convolutions), both for SPAN's tail."""
        c1, c2, c3 = self.convs
        first = F.silu(c1(x))
        return span_gate(x, c3(F.silu(c2(first)))), first
