"""The module of the CUDA kernels: imported once, its errors turned into exceptions.

It is imported along with the package, which takes a millisecond or two and touches no driver: a
choice among kernels is then metadata alone, as torch.compile needs it.
"""

from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from espan_kernels.build_info import LEFT_OUT, PACKAGE, REBUILD, SOURCES, source_hash


class CudaError(RuntimeError):
    """A kernel was not launched, or work before it on the device failed."""


def load() -> tuple[Any, str | None]:
    """(the module, None), or (None, the reason why there is none)."""
    try:
        # A file of the build, not of the package's face; it is there or not.
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
    # Only a checkout has the sources beside the package.
    if (SOURCES / "launchers.h").exists() and source_hash() != built.SOURCE_HASH:
        return None, f"CUDA kernels were built from other sources than {SOURCES}; {REBUILD}"
    return built, None


MODULE, REASON = load()
# The type of device they run on; the tests' host build runs them on the cpu.
DEVICE = MODULE.DEVICE if MODULE else "cuda"


def call(name: str, like: Tensor, **arguments) -> None:
    """Launches kernel `name` on the device of `like`, on its current stream.

    arguments: the fields of the kernel's parameter struct in csrc/launchers.h. Tensors are passed
    as their addresses, None as a null pointer, dtypes, layouts and epilogues as their names.
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
