"""span_gate: the parameter-free attention of SPAN, forward and backward."""

from torch import Tensor

from espan_kernels.check import alike, expect
from espan_kernels.machine import INTERPRETED, kernel_dtype, needs_cuda, needs_triton
from espan_kernels.op import Op
from espan_kernels.span_gate import sample
from espan_kernels.span_gate.reference import reference, reference_backward

_backward = Op("span_gate_backward", reference_backward, sample.CASES, sample.make_backward)
_backward.kernel(
    "cuda",
    "espan_kernels.span_gate.kernel_cuda:span_gate_backward",
    needs_cuda,
    kernel_dtype,
)
_backward.kernel(
    "triton",
    "espan_kernels.span_gate.kernel_triton:span_gate_backward",
    needs_triton,
    kernel_dtype,
)


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


op = Op(
    "span_gate",
    reference,
    sample.CASES,
    sample.make,
    setup_context=_save,
    backward=lambda ctx, grad: _backward(
        grad, *ctx.saved_tensors, impl="triton" if INTERPRETED else None
    ),
)
op.kernel("cuda", "espan_kernels.span_gate.kernel_cuda:span_gate", needs_cuda, kernel_dtype)
op.kernel("triton", "espan_kernels.span_gate.kernel_triton:span_gate", needs_triton, kernel_dtype)


def span_gate(x: Tensor, y: Tensor, *, impl: str | None = None) -> Tensor:
    """`(y + x) * (torch.sigmoid(y) - 0.5)`, in one pass over memory; differentiable.

    x, y: any equal shape, floating point, one device and dtype. Any strides; a tensor that is not
    dense is copied first. impl: None takes the fastest that runs, "cuda", "triton" or "eager"
    that one and no other. Raises ValueError for arguments that do not fit.
    """
    for argument, tensor in (("x", x), ("y", y)):
        expect(isinstance(tensor, Tensor), "span_gate", argument, "a tensor", type(tensor).__name__)
    expect(x.is_floating_point(), "span_gate", "x", "floating point", x.dtype)
    expect(
        x.shape == y.shape, "span_gate", "y", f"the shape of x, {tuple(x.shape)}", tuple(y.shape)
    )
    alike("span_gate", "x", x, y)
    return op(x, y, impl=impl)
