"""The extension module of the CUDA kernels, with its error codes as exceptions.

The module is imported with the package, which takes 1 to 2 ms and touches no driver. Choosing a
kernel is then a matter of metadata, which torch.compile can trace.
"""

import torch
from torch import Tensor

from espan_kernels import extension


class CudaError(RuntimeError):
    """A kernel launch failed, or earlier work on the device failed."""


MODULE, REASON = extension.load(extension.CUDA)
# The kernels' device type; the host build of the tests runs them on "cpu".
DEVICE = MODULE.DEVICE if MODULE else "cuda"


def call(name: str, like: Tensor, **arguments) -> None:
    """Launches kernel `name` on the device and current stream of `like`.

    arguments: the fields of the kernel's parameter struct in csrc/launchers.h. Tensors become
    addresses, None a null pointer; dtypes, layouts and epilogues are passed by name.
    """
    raw = {field: _raw(value) for field, value in arguments.items()}
    if like.is_cuda:
        with torch.cuda.device(like.device):
            stream = torch.cuda.current_stream().cuda_stream
            error = getattr(MODULE, name)(**raw, stream=stream)
    else:
        error = getattr(MODULE, name)(**raw, stream=None)
    if error:
        lost = "the CUDA context is lost, restart the process"
        advice = "free memory on the device" if error == MODULE.OUT_OF_MEMORY else lost
        raise CudaError(f"{name}: {MODULE.describe(error)}; {advice}")


def _raw(value):
    if isinstance(value, Tensor):
        return value.data_ptr()
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    return value
