"""The CUDA kernel's door: weights as its warps hold them, pictures in a layout it reads."""

from torch import Tensor

from espan_kernels import layout, native


def conv3x3(x: Tensor, weight: Tensor, bias: Tensor, act: str, gate: Tensor | None) -> Tensor:
    out = layout.empty(x, x.shape)
    if not out.numel():
        return out
    epilogue = act if gate is None else "gate"
    # The gate is computed from half of the convolution.
    scale = 0.5 if epilogue == "gate" else 1
    packed, bias = layout.fragments(weight * scale), bias.float() * scale
    n, channels, h, w = x.shape
    shape = n, h, w
    if layout.is_channels_last(out):
        x, gate = layout.laid_out_as(out, x, x if gate is None else gate)
        native.call("conv3x3", x, x, packed, bias, gate, out, epilogue, *shape, "channels_last")
        return out
    planes = layout.to_planes(x)
    gate = planes if gate is None else layout.to_planes(gate)
    out = layout.empty(planes, planes.shape)
    native.call("conv3x3", x, planes, packed, bias, gate, out, epilogue, *shape, "planes")
    return layout.from_planes(out, channels)
