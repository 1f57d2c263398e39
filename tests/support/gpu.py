"""Whether there is a GPU, and the device kernels run on; all other tests name their device.

Asked of the GPU itself: `torch.cuda.is_available()` is what the make-believe one answers.
"""

import torch


def _works() -> bool:
    try:
        torch.empty(1, device="cuda")
    except (RuntimeError, AssertionError):  # the latter is what torch without CUDA raises
        return False
    return True


GPU = _works()
# Where kernels run: without a GPU in Triton's interpreter and in the host build.
DEVICE = "cuda" if GPU else "cpu"
