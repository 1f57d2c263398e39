"""span_gate in CUDA: allocates outputs, makes inputs dense with equal strides, launches."""

from torch import Tensor

from espan_kernels import layout, native


def span_gate(x: Tensor, y: Tensor) -> Tensor:
    out = layout.empty(x, x.shape)
    if out.numel():
        x, y = layout.laid_out_as(out, x, y)
        native.call("span_gate", out, x=x, y=y, out=out, size=out.numel(), dtype=out.dtype)
    return out


def span_gate_backward(grad: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    dx, dy = layout.empty(grad, x.shape), layout.empty(grad, x.shape)
    if dx.numel():
        grad, x, y = layout.laid_out_as(dx, grad, x, y)
        given = {"grad": grad, "x": x, "y": y, "size": dx.numel(), "dtype": dx.dtype}
        native.call("span_gate_backward", dx, **given, dx=dx, dy=dy)
    return dx, dy
