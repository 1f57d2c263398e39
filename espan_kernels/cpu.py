"""Convolutional layers on a CPU, in bfloat16 or float32: the module `_cpu` of csrc/cpu.

A layer is a sum over taps, each of which multiplies up to 32 values at every pixel by a matrix
(32, channels), with float32 sums. An activation or the pixel shuffle at its end is part of the
layer. `run` takes all layers of a network together, and computes a few rows of all of them before
the next rows.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from espan_kernels import extension

# The units of a processor that multiply a dtype, the fastest first.
UNITS = {torch.bfloat16: ("amx", "avx512_bf16"), torch.float32: ("avx512", "avx2")}
# The instruction set that oneDNN may use at most, and the names of those that include a unit.
_LIMIT = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
_ALLOWS = {
    "amx": "AMX|ALL|DEFAULT",
    "avx512_bf16": "BF16|FP16|AVX10|AMX|ALL|DEFAULT",
    "avx512": "AVX512|AVX10|ALL|DEFAULT",
    "avx2": "AVX|ALL|DEFAULT",
}


MODULE, REASON = extension.load(extension.CPU)
# Values of a tap; channels that are multiplied together; pixels of a row that are read together.
TAP, TILE, GROUP, MAX_CHANNELS = 32, 16, 32, 64


def unit(dtype: torch.dtype) -> str | None:
    """The fastest unit of this processor for `dtype`, None where there is none or no module.

    ONEDNN_MAX_CPU_ISA, oneDNN's limit on instruction sets, applies here too.
    """
    names = UNITS.get(dtype, ())
    allowed = [each for each in names if re.search(_ALLOWS[each], _LIMIT)] if _LIMIT else names
    return next((each for each in allowed if MODULE and MODULE.has(each)), None)


def faster_dtype() -> torch.dtype | None:
    """bfloat16 or float32, whichever this processor multiplies faster; None without kernels.

    AMX and AMD's AVX-512 multiply bfloat16 twice as fast or more. Intel's AVX-512 gains nothing
    (docs/performance.md), so float32, which is more exact, comes first there.
    """
    slow = ("avx512_bf16",) if MODULE and MODULE.INTEL else ()
    if (half := unit(torch.bfloat16)) and half not in slow:
        return torch.bfloat16
    return torch.float32 if unit(torch.float32) else None


def refusal(dtype: torch.dtype) -> str | None:
    """Why CPU kernels cannot compute in `dtype` here; None if they can."""
    if dtype not in UNITS:
        return f"CPU kernels compute in bfloat16 or float32, not in {dtype}"
    return REASON or (None if unit(dtype) else f"this processor cannot multiply {dtype}")


def pitch(channels: int, unit: str) -> int:
    """Values from one pixel of a feature map to the next, of which `channels` are used.

    AMX loads 64 bytes of a pixel, quickest if they are aligned. The other units read value by
    value, bfloat16 in pairs; a multiple of four keeps their stores of 16 bytes within cache lines.
    """
    return channels + -channels % (16 if unit == "amx" else 4)


class Place(NamedTuple):
    """Where a layer finds or puts the values of a pixel: an address, and elements between pixels.

    values: how many of them a tap reads.
    """

    address: int
    row: int
    pixel: int
    values: int = TAP


NOWHERE = Place(0, 0, 0)


@dataclass
class Layer:
    """One layer of `run`; the tensors of its addresses must outlive the call."""

    taps: Sequence[Place]
    weights: Tensor  # of `pack`
    bias: Tensor  # of `pack_bias`
    channels: int
    out: Place
    height: int
    width: int
    reach: int  # rows above and below a pixel that its taps read
    epilogue: str = "none"  # or silu, gate, shuffle
    gate: Place = NOWHERE
    scale: int = 1


def pack(matrices: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Matrices (up to 32, channels), one per tap, in the order that the units of `dtype` read."""
    channels = matrices[0].shape[1]
    padded = [F.pad(m, (0, -channels % TILE, 0, TAP - len(m))) for m in matrices]
    values = 2 if dtype == torch.bfloat16 else 1  # that are multiplied together
    rows = torch.stack(padded).to(dtype).view(len(padded), TAP // values, values, -1, TILE)
    return rows.permute(0, 3, 1, 4, 2).contiguous()


def pack_bias(bias: Tensor) -> Tensor:
    """A bias (channels,) as float32, filled up to whole tiles."""
    return F.pad(bias.float(), (0, -len(bias) % TILE))


def run(layers: Sequence[Layer], threads: int, unit: str) -> None:
    """Runs the layers, all of one height, as if in sequence, on `threads` threads.

    A layer may write to a map that an earlier layer reads.
    """
    MODULE.run([_raw(layer) for layer in layers], unit, threads)


def to_bytes(y: Tensor, out: Tensor, threads: int) -> bool:
    """`out.copy_((255 * y).round().clamp(0, 255))`, for what `takes_bytes` accepts.

    y: (H, W, 3) in bfloat16 or float32. out: (H, W, 3) in uint8, or (H, W, 4), where 255 fills the
    fourth channel. False if y is not finite; `out` is then undefined.
    """
    height, width, channels = out.shape
    rows = y.stride(0), out.data_ptr(), out.stride(0)
    finite: bool = MODULE.to_bytes(
        y.data_ptr(), *rows, channels, height, width, unit(y.dtype), threads
    )
    return finite


def takes_bytes(y: Tensor, out: Tensor) -> bool:
    """Whether `to_bytes` runs here, on tensors (H, W, C) of these dtypes and strides."""
    return (
        out.dtype == torch.uint8
        and y.is_cpu
        and out.is_cpu
        and y.shape[2] == 3
        and out.shape[2] in (3, 4)
        and y.stride()[1:] == (3, 1)
        and out.stride()[1:] == (out.shape[2], 1)
        and unit(y.dtype) is not None
    )


def _raw(layer: Layer) -> dict[str, Any]:
    address, row, pixel, _ = layer.out
    return vars(layer) | {
        "taps": [tuple(tap) for tap in layer.taps],
        "weights": layer.weights.data_ptr(),
        "bias": layer.bias.data_ptr(),
        "gate": tuple(layer.gate),
        "out": address,
        "row": row,
        "pixel": pixel,
    }
