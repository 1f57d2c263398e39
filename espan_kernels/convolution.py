"""Float32 convolutions whose precision is an argument, not cuDNN's process-wide switch."""

import torch
import torch.nn.functional as F
from torch import Tensor


def conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, padding: int = 0, *, tf32: bool = False
) -> Tensor:
    """`F.conv2d(x, weight, bias, padding=padding)`, on a GPU in TF32 only with tf32=True.

    By default cuDNN multiplies float32 in TF32, which keeps 10 of 23 mantissa bits. The switch
    `torch.backends.cudnn.allow_tf32` affects all threads; this function leaves it alone.
    """
    if not follows_global_switch(x):
        return F.conv2d(x, weight, bias, padding=padding)
    # Inductor lowers aten._convolution to a call that follows the switch, but keeps custom ops.
    compute = _opaque if torch.compiler.is_compiling() else _compute
    return compute(x, weight, bias, padding, tf32)


def depthwise(x: Tensor, weight: Tensor, stride: int = 1) -> Tensor:
    """Filters each channel of x (N, C, H, W) by weight (n*C, 1, h, w), without padding.

    Never in TF32: by PyTorch's own kernel for such filters, without cuDNN.
    """
    geometry = [stride, stride], [0, 0], [1, 1], False, [0, 0], x.size(1)
    cudnn = False, False, False, False  # benchmark, deterministic, enabled, TF32
    return torch.ops.aten._convolution(x.contiguous(), weight, None, *geometry, *cudnn)


def follows_global_switch(x: Tensor) -> bool:
    """Whether `F.conv2d(x, ...)` depends on the switch."""
    return x.dtype == torch.float32 and x.device.type == "cuda"


def _compute(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, tf32: bool) -> Tensor:
    cudnn = torch.backends.cudnn
    return torch.ops.aten._convolution(
        x,
        weight,
        bias,
        *_geometry(padding),
        cudnn.benchmark,
        cudnn.deterministic or torch.are_deterministic_algorithms_enabled(),
        cudnn.enabled,
        tf32,
    )


def _geometry(padding: int) -> tuple:
    """stride, padding, dilation, transposed, output_padding, groups."""
    return [1, 1], [padding, padding], [1, 1], False, [0, 0], 1


@torch.library.custom_op("espan::conv2d", mutates_args=())
def _opaque(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, tf32: bool) -> Tensor:
    return _compute(x, weight, bias, padding, tf32)


@_opaque.register_fake
def _(x, weight, bias, padding, tf32):
    return F.conv2d(x, weight, bias, padding=padding)


def _keep(ctx, inputs, output) -> None:
    x, weight, bias, ctx.padding, _tf32 = inputs
    ctx.save_for_backward(x, weight)
    ctx.biases = None if bias is None else [*bias.shape]


def _backward(ctx, grad: Tensor) -> tuple:
    """PyTorch's backward, in the process-wide precision, which training leaves alone."""
    x, weight = ctx.saved_tensors
    mask = [*ctx.needs_input_grad[:2], ctx.biases is not None]
    grads = torch.ops.aten.convolution_backward(
        grad, x, weight, ctx.biases, *_geometry(ctx.padding), mask
    )
    return *grads, None, None


_opaque.register_autograd(_backward, setup_context=_keep)
