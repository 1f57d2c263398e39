"""spab with wgmma (sm_90a): weights in shared-memory order, feature maps in NC/8HW8 layout."""

from collections.abc import Sequence

import torch
from torch import Tensor

from espan_kernels import layout as layouts
from espan_kernels import native
from espan_kernels.spab import kernel_cuda


def pack(weights: Sequence[Tensor], biases: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Packs a block's 2 or 3 float16 weights (C, C, 3, 3) and biases (C,) for `launch`; reusable.

    They are halved: SiLU and the gate are computed from half of a convolution.
    """
    taps = [layouts.wgmma_taps(weight / 2) for weight in weights]
    floats = [layouts.padded(bias.float()) / 2 for bias in biases]
    return torch.stack(taps), torch.stack(floats)


def launch(
    x: Tensor,
    packed: tuple[Tensor, Tensor],
    out: Tensor,
    scratch: Tensor | None = None,
    overlap: bool = False,
) -> None:
    """Launches a block on the current stream of x's device: out = spab(x). Allocates nothing.

    x, out: (N, ceil(C / 8), H, W, 8) float16, dense, 16-byte aligned, not overlapping; channels
    past C zero in x, and then in out. At least one pixel.
    scratch: like out, for hidden feature maps; needed only above 32 channels.
    overlap: the kernel may start before the previous kernel on the stream ends; the previous
    kernel must not write `packed`.
    """
    given = kernel_cuda.arguments(x, packed, out, scratch)
    native.call("spab_wgmma", x, **given, overlap=overlap)


def spab(x: Tensor, weights: list[Tensor], biases: list[Tensor]) -> Tensor:
    out = layouts.empty(x, x.shape)
    if not out.numel():
        return out
    planes = layouts.to_nc8hw8(x)
    result, scratch = (layouts.empty(planes, planes.shape) for _ in range(2))
    launch(planes, pack(weights, biases), result, scratch)
    return out.copy_(layouts.from_nc8hw8(result, x.size(1)))
