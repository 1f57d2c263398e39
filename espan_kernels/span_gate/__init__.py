"""span_gate: the parameter-free attention of SPAN, forward and backward."""

from torch import Tensor

from espan_kernels import check
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
    """`(y + x) * (torch.sigmoid(y) - 0.5)` in one pass over memory; differentiable.

    Args:
        x, y: same shape, device and floating dtype, any strides; non-dense tensors are copied.
        impl: "cuda", "triton" or "eager" runs exactly that implementation; None runs the fastest
            one available.

    Returns:
        The gated values, in the shape and dtype of `x`.

    Raises:
        ValueError: an argument is invalid, or `impl` cannot run here.
    """
    check.tensor("span_gate", "x", x)
    check.tensor("span_gate", "y", y)
    if not x.is_floating_point():
        raise check.error("span_gate", "x", "floating point", x.dtype)
    if x.shape != y.shape:
        expected = f"the shape of x, {tuple(x.shape)}"
        raise check.error("span_gate", "y", expected, tuple(y.shape))
    check.same_device_and_dtype("span_gate", "x y", x, y)
    return op(x, y, impl=impl)
