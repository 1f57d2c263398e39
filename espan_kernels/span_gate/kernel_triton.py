"""span_gate in Triton: forward and backward as one elementwise kernel each."""

import triton
import triton.language as tl
from torch import Tensor

from espan_kernels import layout
from espan_kernels.triton_math import gate, narrow, sigmoid

BLOCK = 1024


@triton.jit
def forward_kernel(x_ptr, y_ptr, out_ptr, size, BLOCK: tl.constexpr):
    o = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = o < size
    x = tl.load(x_ptr + o, mask=inside).to(tl.float32)
    y = tl.load(y_ptr + o, mask=inside).to(tl.float32)
    tl.store(out_ptr + o, narrow(gate(x, y), out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def backward_kernel(grad_ptr, x_ptr, y_ptr, dx_ptr, dy_ptr, size, BLOCK: tl.constexpr):
    o = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = o < size
    grad = tl.load(grad_ptr + o, mask=inside).to(tl.float32)
    x = tl.load(x_ptr + o, mask=inside).to(tl.float32)
    y = tl.load(y_ptr + o, mask=inside).to(tl.float32)
    s = sigmoid(y)
    dx = grad * (s - 0.5)
    dy = grad * (s - 0.5 + (y + x) * s * (1 - s))
    tl.store(dx_ptr + o, narrow(dx, dx_ptr.dtype.element_ty), mask=inside)
    tl.store(dy_ptr + o, narrow(dy, dy_ptr.dtype.element_ty), mask=inside)


def _laid_out_as(out: Tensor, *inputs: Tensor) -> list[Tensor]:
    """The inputs with the strides of `out`, which is dense; copies if needed."""
    return [
        x if x.stride() == out.stride() else layout.empty(out, x.shape).copy_(x) for x in inputs
    ]


def span_gate(x: Tensor, y: Tensor) -> Tensor:
    out = layout.empty(x, x.shape)
    if out.numel():
        x, y = _laid_out_as(out, x, y)
        forward_kernel[(triton.cdiv(out.numel(), BLOCK),)](x, y, out, out.numel(), BLOCK)
    return out


def span_gate_backward(grad: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    dx, dy = layout.empty(grad, x.shape), layout.empty(grad, x.shape)
    if dx.numel():
        grad, x, y = _laid_out_as(dx, grad, x, y)
        grid = (triton.cdiv(dx.numel(), BLOCK),)
        backward_kernel[grid](grad, x, y, dx, dy, dx.numel(), BLOCK)
    return dx, dy
