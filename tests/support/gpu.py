"""Whether there is a GPU, and the device that kernels run on; all other tests name their device.

Runs work on the GPU, because the make-believe device also fakes `torch.cuda.is_available()`.
"""

import torch


def _works() -> bool:
    try:
        torch.empty(1, device="cuda")
    except (RuntimeError, AssertionError):  # AssertionError: torch without CUDA
        return False
    return True


GPU = _works()
# The device of the kernels; "cpu" for Triton's interpreter and the host build.
DEVICE = "cuda" if GPU else "cpu"
