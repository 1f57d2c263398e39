"""Float32 convolutions that mean what the call says, whatever the process allows cuDNN."""

import torch
import torch.nn.functional as F
from torch import Tensor


def conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, padding: int = 0, *, tf32: bool = False
) -> Tensor:
    """`F.conv2d(x, weight, bias, padding=padding)`, on a GPU in TF32 only if `tf32` says so.

    By default cuDNN multiplies float32 in TF32, which keeps 10 bits of a factor's 23. The switch
    `torch.backends.cudnn.allow_tf32` is one for all threads; here the choice is an argument, and
    nothing is switched.
    """
    if not by_switch(x):
        return F.conv2d(x, weight, bias, padding=padding)
    # Inductor replaces aten._convolution by one that goes by the switch; an op of our own it keeps.
    compute = _opaque if torch.compiler.is_compiling() else _compute
    return compute(x, weight, bias, padding, tf32)


def by_switch(x: Tensor) -> bool:
    """Whether `F.conv2d(x, ...)` would go by the switch."""
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
    """stride, padding, dilation, transposed, output_padding, groups"""
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
    """By PyTorch's own, in whatever precision the process allows it: training asks for nothing."""
    x, weight = ctx.saved_tensors
    wanted = [*ctx.needs_input_grad[:2], ctx.biases is not None]
    grads = torch.ops.aten.convolution_backward(
        grad, x, weight, ctx.biases, *_geometry(ctx.padding), wanted
    )
    return *grads, None, None


_opaque.register_autograd(_backward, setup_context=_keep)
