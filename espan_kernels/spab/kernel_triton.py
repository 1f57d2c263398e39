"""spab in Triton: one conv3x3 kernel per convolution."""

from torch import Tensor

from espan_kernels.conv3x3.kernel_triton import conv3x3


def spab(x: Tensor, weights: list[Tensor], biases: list[Tensor]) -> Tensor:
    h = x
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        h = conv3x3(h, weight, bias, "silu", None)
    return conv3x3(h, weights[-1], biases[-1], "none", x)
