"""A GPU's TF32 on a CPU: convolutions that round their factors unless they are told not to."""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from espan_kernels import convolution

# Bits of a float32 that TF32 leaves out of a factor.
LOST = 13


def rounded(x: Tensor) -> Tensor:
    """float32 with the 10 bits behind the point that TF32 has, to nearest."""
    bits = x.contiguous().view(torch.int32)
    return ((bits + (1 << LOST - 1)) >> LOST << LOST).view(torch.float32)


class Tf32(TorchDispatchMode):
    """Every convolution of float32 in this thread, as cuDNN computes it.

    A plain one goes by PyTorch's switch, which is on by default; one that names its precision goes
    by that. `switch` lists what the switch said as each was computed.
    """

    def __init__(self):
        super().__init__()
        self.switch: list[bool] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        aten, kwargs = torch.ops.aten, kwargs or {}
        plain = func in (aten.conv2d.default, aten.convolution.default)  # the first in inference
        if plain or func is aten._convolution.default:
            switch = torch.backends.cudnn.allow_tf32
            self.switch.append(switch)
            if (switch if plain else args[-1]) and args[0].dtype == torch.float32:
                args = rounded(args[0]), rounded(args[1]), *args[2:]
        return func(*args, **kwargs)


def tf32_device(monkeypatch) -> Tf32:
    """To be entered: float32 on the CPU is computed as on a GPU with TF32."""
    monkeypatch.setattr(convolution, "follows_global_switch", lambda x: x.dtype == torch.float32)
    return Tf32()
