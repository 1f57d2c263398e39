"""conv9x9_head with wgmma (sm_90a): the weight in shared-memory order."""

import torch.nn.functional as F
from torch import Tensor

from espan_kernels import layout as layouts
from espan_kernels import native
from espan_kernels.conv9x9_head.kernel_cuda import CHANNELS, arguments, dense, rows

# Kernel rows in packed order: any 9 consecutive ones belong to the 9 output rows in progress.
ROWS = [*range(8, -1, -1), *range(8, 0, -1)]


def pack(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Packs a float16 weight (C, 3, 9, 9) and bias (C,), C 25 to 32, for `launch`; reusable."""
    # Group of 16 columns, half of it, kernel row, output plane, output channel, column.
    parts = rows(weight)[ROWS].reshape(len(ROWS), 4, 8, 2, 2, 8).permute(3, 4, 0, 1, 2, 5)
    return parts.contiguous(), F.pad(bias.float(), (0, CHANNELS - len(bias)))


def launch(
    x: Tensor,
    x_layout: str,
    packed: tuple[Tensor, Tensor],
    out: Tensor,
    overlap: bool = False,
) -> None:
    """Launches the convolution on the current stream of x's device. Allocates nothing.

    x, x_layout: see kernel_cuda's `launch`. out: (N, 4, H, W, 8) float16, dense, 16-byte aligned;
    channels past C become 0. At least one pixel. overlap: see spab's `launch`.
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
    return out.copy_(layouts.from_nc8hw8(planes, len(weight)))
