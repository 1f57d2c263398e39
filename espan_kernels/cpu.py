"""Convolutional layers on a CPU, in bfloat16 with float32 sums: the module `_cpu` of csrc/cpu.

A layer is a sum over taps, each of which multiplies 32 numbers at every pixel by a matrix
(32, channels). An activation or the pixel shuffle at its end is part of the layer. `run` takes all
layers of a network together, and computes a few rows of all of them before the next rows.
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

# The units of a processor that multiply bfloat16, the fastest first.
UNITS = ("amx", "avx512")
# The instruction set that oneDNN may use at most, and the names of those that include a unit.
_LIMIT = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
_ALLOWS = {"amx": "AMX|ALL|DEFAULT", "avx512": "BF16|FP16|AVX10|AMX|ALL|DEFAULT"}


MODULE, REASON = extension.load(extension.CPU)
# Numbers of a tap; channels that are multiplied together; pixels of a row that are read together.
TAP, TILE, GROUP, MAX_CHANNELS = 32, 16, 32, 64


def unit() -> str | None:
    """The fastest unit of this processor, None where there is none or no module.

    ONEDNN_MAX_CPU_ISA, oneDNN's limit on instruction sets, applies here too.
    """
    allowed = [each for each in UNITS if re.search(_ALLOWS[each], _LIMIT)] if _LIMIT else UNITS
    return next((each for each in allowed if MODULE and MODULE.has(each)), None)


def refusal() -> str | None:
    """Why CPU kernels cannot run here; None if they can."""
    return REASON or (None if unit() else "this processor cannot multiply bfloat16")


class Place(NamedTuple):
    """Where a layer finds or puts a pixel's numbers: an address, and elements between pixels."""

    address: int
    row: int
    pixel: int


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


def pack(matrices: Sequence[Tensor]) -> Tensor:
    """Matrices (up to 32, channels), one for each tap, in the order that the units read."""
    channels = matrices[0].shape[1]
    padded = torch.stack(
        [F.pad(m, (0, -channels % TILE, 0, TAP - len(m))) for m in matrices]
    ).bfloat16()
    return padded.view(len(padded), TAP // 2, 2, -1, TILE).permute(0, 3, 1, 4, 2).contiguous()


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

    y: (H, W, 3) in bfloat16. out: (H, W, 3) in uint8, or (H, W, 4), where 255 fills the fourth
    channel. False if y is not finite; `out` is then undefined.
    """
    height, width, channels = out.shape
    rows = y.stride(0), out.data_ptr(), out.stride(0)
    finite: bool = MODULE.to_bytes(y.data_ptr(), *rows, channels, height, width, threads)
    return finite


def takes_bytes(y: Tensor, out: Tensor) -> bool:
    """Whether `to_bytes` runs here, on tensors (H, W, C) of these dtypes and strides."""
    return (
        (y.dtype, out.dtype) == (torch.bfloat16, torch.uint8)
        and y.is_cpu
        and out.is_cpu
        and y.shape[2] == 3
        and out.shape[2] in (3, 4)
        and y.stride()[1:] == (3, 1)
        and out.stride()[1:] == (out.shape[2], 1)
        and unit() is not None
    )


def _raw(layer: Layer) -> dict[str, Any]:
    address, row, pixel = layer.out
    return vars(layer) | {
        "taps": [tuple(tap) for tap in layer.taps],
        "weights": layer.weights.data_ptr(),
        "bias": layer.bias.data_ptr(),
        "gate": tuple(layer.gate),
        "out": address,
        "row": row,
        "pixel": pixel,
    }
