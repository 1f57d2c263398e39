"""conv9x9_head by the tensor cores of sm_90a: the weight as it lies in shared memory."""

import torch.nn.functional as F
from torch import Tensor

from espan_kernels import layout as layouts
from espan_kernels import native
from espan_kernels.conv9x9_head.kernel_cuda import CHANNELS, arguments, dense, rows

# Of the kernel: any 9 in a row belong to the 9 open rows of output.
ROWS = [*range(8, -1, -1), *range(8, 0, -1)]


def pack(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """A weight (C, 3, 9, 9) and bias (C,), float16, C 25 to 32, as `launch` wants them; for any
    number of launches."""
    # Of 16 columns, the two halves, rows, planes out, channels out, columns.
    parts = rows(weight)[ROWS].reshape(len(ROWS), 4, 8, 2, 2, 8).permute(3, 4, 0, 1, 2, 5)
    return parts.contiguous(), F.pad(bias.float(), (0, CHANNELS - len(bias)))


def launch(
    x: Tensor,
    x_layout: str,
    packed: tuple[Tensor, Tensor],
    out: Tensor,
    overlap: bool = False,
) -> None:
    """Queues the convolution on the current stream of x's device. Allocates nothing.

    x, x_layout: as of kernel_cuda's. out: (N, 4, H, W, 8) float16, dense, 16-byte aligned; channels
    past C become 0. At least one pixel. overlap: as of spab's.
    """
    given = arguments(x, x_layout, packed, out)
    native.call("conv9x9_head_wgmma", x, **given, overlap=overlap)


def conv9x9_head(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    n, _, h, w = x.shape
    out = layouts.empty(x, (n, len(weight), h, w), weight.dtype)
    if not out.numel():
        return out
    planes = layouts.empty(bias, (n, CHANNELS // layouts.PLANE, h, w, layouts.PLANE))
    launch(*dense(x), pack(weight, bias), planes)
    return out.copy_(layouts.from_planes(planes, len(weight)))
