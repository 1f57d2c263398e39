"""Loads the extension module of the CUDA kernels and turns its error codes into exceptions.

The module is imported with the package, which takes 1 to 2 ms and touches no driver. Choosing a
kernel is then a matter of metadata, which torch.compile can trace.
"""

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from espan_kernels.build_info import LEFT_OUT, PACKAGE, REBUILD, SOURCES, source_hash


class CudaError(RuntimeError):
    """A kernel launch failed, or earlier work on the device failed."""


def load() -> tuple[Any, str | None]:
    """(the module, None), or (None, the reason why it is unavailable)."""
    try:
        # An optional build product.
        import espan_kernels._cuda as built
    except ImportError as error:
        note = PACKAGE / LEFT_OUT
        if note.exists():
            why = f"not built (left out: {note.read_text().strip()})"
        elif find_spec("espan_kernels._cuda") is None:
            why = "not built"
        else:
            why = f"not loadable ({error})"
        return None, f"CUDA kernels are {why}; with nvcc: {REBUILD}"
    # Only a source checkout has csrc next to the package.
    if (SOURCES / "launchers.h").exists() and source_hash() != built.SOURCE_HASH:
        return None, f"CUDA kernels were built from other sources than {SOURCES}; {REBUILD}"
    return built, None


MODULE, REASON = load()
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
