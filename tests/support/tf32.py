"""Emulates a GPU's TF32 on the CPU: convolutions round their factors unless disabled."""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from espan_kernels import convolution

# Mantissa bits of float32 that TF32 drops.
LOST = 13


def rounded(x: Tensor) -> Tensor:
    """float32 rounded to nearest with TF32's 10 mantissa bits."""
    bits = x.contiguous().view(torch.int32)
    return ((bits + (1 << LOST - 1)) >> LOST << LOST).view(torch.float32)


class Tf32(TorchDispatchMode):
    """Computes every float32 convolution in this thread as cuDNN does.

    Plain convolutions follow cudnn.allow_tf32, which is on by default; others follow their
    argument. `flags` lists cudnn.allow_tf32 at each convolution.
    """

    def __init__(self):
        super().__init__()
        self.flags: list[bool] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        aten, kwargs = torch.ops.aten, kwargs or {}
        plain = func in (aten.conv2d.default, aten.convolution.default)  # conv2d in inference
        if plain or func is aten._convolution.default:
            allowed = torch.backends.cudnn.allow_tf32
            self.flags.append(allowed)
            if (allowed if plain else args[-1]) and args[0].dtype == torch.float32:
                args = rounded(args[0]), rounded(args[1]), *args[2:]
        return func(*args, **kwargs)


def tf32_device(monkeypatch) -> Tf32:
    """A context in which float32 on the CPU is computed as on a GPU with TF32."""
    monkeypatch.setattr(convolution, "follows_global_switch", lambda x: x.dtype == torch.float32)
    return Tf32()
