"""tail with wgmma (sm_90a): weights in shared-memory order, feature maps in NC/8HW8 layout."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from espan_kernels import layout as layouts
from espan_kernels import native
from espan_kernels.tail.kernel_cuda import CHANNELS, arguments, result


def pack(
    weights: Sequence[Tensor], bias: Tensor, up_weight: Tensor, up_bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Packs a tail for `launch`: (all weights concatenated, the biases); reusable.

    weights: in `order`, one (C, C, 3, 3) or (C, C, 1, 1), then two or three (C, C, 1, 1); the last
    of two may be (C, 3, 1, 1). bias (C,), up_weight (3 * scale^2, C, 3, 3), up_bias; float16,
    C 25 to 32.
    """
    more, filled = CHANNELS - len(bias), -len(up_bias) % 16
    wide = F.pad(weights[0], [(3 - weights[0].shape[-1]) // 2] * 4)
    fills = [(0, CHANNELS - weight.shape[1], 0, more) for weight in weights[1:]]
    singles = [F.pad(w[..., 0, 0], fill) for w, fill in zip(weights[1:], fills, strict=True)]
    # Group of 16 input channels, half of it, output plane, output channel, input channel.
    singles = [one.reshape(4, 8, 2, 2, 8).permute(2, 3, 0, 1, 4) for one in singles]
    up = layouts.wgmma_taps(F.pad(up_weight, (0, 0, 0, 0, 0, more, 0, filled)))
    parts = [layouts.wgmma_taps(wide), *singles, up]
    biases = F.pad(bias.float(), (0, more)), F.pad(up_bias.float(), (0, filled))
    return torch.cat([part.flatten() for part in parts]), torch.cat(biases)


def order(weights: Sequence[Tensor]) -> list[int]:
    """The indices of the weights, the largest kernel first, the fewest input channels last."""
    return sorted(range(len(weights)), key=lambda i: (-weights[i].shape[-1], -weights[i].shape[1]))


def limit_bits(limit: float) -> int:
    """The bits of the largest float16 <= `limit`, for `launch`; -1 if there is none."""
    if not limit >= 0:
        return -1
    half = torch.tensor(min(limit, torch.finfo(torch.float16).max), dtype=torch.float64)
    nearest = half.half()
    return int(nearest.view(torch.int16).item()) - bool(nearest.double() > half)


def launch(
    inputs: Sequence[Tensor],
    packed: tuple[Tensor, Tensor],
    out: Tensor,
    out_layout: str,
    scale: int,
    clamp: bool,
    trusted: Tensor | None = None,
    limit: int = -1,
    overlap: bool = False,
) -> None:
    """Launches a tail on the current stream of its inputs' device. Allocates nothing.

    inputs: in the order of the weights in `pack`, (N, ceil(channels / 8), H, W, 8) float16, dense,
    16-byte aligned, padding channels finite. out, out_layout: see kernel_cuda's `launch`.
    trusted: bool, one element. Set to False if an input value is not finite or its magnitude
    exceeds the float16 from `limit_bits`; otherwise unchanged.
    overlap: see spab's `launch`.
    """
    weights, biases = packed
    given = arguments(inputs, out, out_layout, scale, clamp)
    given |= {"weights": weights, "biases": biases, "trusted": trusted, "limit": limit}
    planes = inputs[-1].size(1)
    native.call("tail_wgmma", inputs[0], **given, last_planes=planes, overlap=overlap)


def tail(
    inputs: list[Tensor],
    weights: list[Tensor],
    bias: Tensor,
    up_weight: Tensor,
    up_bias: Tensor,
    scale: int,
    clamp: bool,
    uint8: bool,
) -> Tensor:
    out, out_layout = result(inputs, bias, scale, uint8)
    if not out.numel():
        return out
    first = order(weights)
    packed = pack([weights[i] for i in first], bias, up_weight, up_bias)
    features = [layouts.to_nc8hw8(inputs[i]) for i in first]
    launch(features, packed, out, out_layout, scale, clamp)
    return out
