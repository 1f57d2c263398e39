"""Exports networks for other programs: ONNX, `torch.export` programs, safetensors.

Reads each file back and compares it with the network before it gets its final name.
"""

import json
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor, nn

from espan import __version__
from espan.backends.onnx_files import deployed, example, onnx_bytes, read_onnx
from espan.checkpoints import weights
from espan.checkpoints.spandrel import to_spandrel_layout
from espan.errors import InputError, OutputError
from espan.exporting import SUFFIXES
from espan.networks.deploy import copy_to
from espan.networks.folding import fold
from espan.networks.network import Network
from espan.networks.span import SPAN
from espan.system.atomic import whole_file
from espan.system.extras import extra

Size: TypeAlias = tuple[int, int]  # (height, width)

# Largest allowed difference, of images in 0..1. For float16, 2.5 levels of 8 bits: rounding changed
# published networks by less than one level.
ALLOWED = {torch.float32: 1e-4, torch.float16: 1e-2}
# Image sizes for the comparison, which expose errors at borders and in rounding up.
SIZES = ((1, 5), (17, 23), (41, 64))


class Exported(NamedTuple):
    """An exported file, and its largest difference from the network, of images in 0..1."""

    path: Path
    format: str
    error: float


def export(
    model: str | Path | nn.Module,
    path: str | Path,
    format: str | None = None,
    *,
    fp16: bool = False,
    size: tuple[int, int] | None = None,
) -> Exported:
    """Writes a folded network as a file for other programs. Atomic: writes the full file or none.

    ONNX files and programs map float32 RGB (N, 3, H, W) in 0..1 to (N, 3, scale*H, scale*W), not
    clamped; N is 1 in ONNX, as video programs require. safetensors files of a SPAN have spandrel's
    layout, others our own, see `register_spandrel`.

    Args:
        model: a built-in name, a weights file or a network.
        path: the file to write.
        format: "onnx", "torch" (a program of `torch.export`) or "safetensors"; None uses the
            suffix of `path`.
        fp16: weights and arithmetic in float16; images stay float32.
        size: fixed (height, width) of images in pixels; None for any size.

    Returns:
        The path, the format, and the largest difference between the file's and the network's
        results, of images in 0..1.

    Raises:
        WeightsError: `model` is not a network, or its file is damaged.
        InputError: an argument is invalid, a package is missing, or spandrel cannot run this SPAN.
        OutputError: the file cannot be written, or its results differ from the network's.
    """
    path = Path(path)
    format = _format(path, format)
    if size is not None and (format == "safetensors" or not _is_size(size)):
        raise InputError(f"size: expected (height, width), for onnx or torch only, got {size!r}")
    net, notes = _network(model)
    dtype = torch.float16 if fp16 else torch.float32
    with whole_file(path) as temporary:
        write, read = {
            "onnx": (_write_onnx, read_onnx),
            "torch": (_write_program, _read_program),
            "safetensors": (_write_safetensors, weights.load),
        }[format]
        write(net, dtype, size, notes, temporary)
        error = difference(read(temporary), net, [size] if size else SIZES)
        if not error <= ALLOWED[dtype]:  # also true for NaN
            raise OutputError(
                f"{path}: its results differ from the network's by {error:.3g} in 0..1; the limit "
                f"in {str(dtype).removeprefix('torch.')} is {ALLOWED[dtype]:g}"
            )
    return Exported(path, format, error)


def _format(path: Path, format: str | None) -> str:
    named = {suffix: name for name, suffix in SUFFIXES.items()}.get(path.suffix.lower())
    if format is not None and format not in SUFFIXES:
        raise InputError(f"format: expected one of {', '.join(SUFFIXES)}, got {format!r}")
    if named is None or format not in (None, named):
        wanted = [SUFFIXES[format]] if format else SUFFIXES.values()
        raise InputError(f"{path}: expected a name ending in {' or '.join(wanted)}")
    return named


def _is_size(size: Any) -> bool:
    pair = isinstance(size, tuple | list) and len(size) == 2
    return pair and all(type(side) is int and side >= 1 for side in size)


def _network(model: str | Path | nn.Module) -> tuple[Network, dict[str, str]]:
    """Returns the folded network in float32 on the CPU, and the notes of its file."""
    if isinstance(model, Network):
        net, notes = fold(model), {}
    elif isinstance(model, nn.Module):
        raise InputError(f"model: expected a network of espan, got {type(model).__name__}")
    else:
        net, notes = weights.load(model), _notes(model)
    return copy_to(net, torch.device("cpu"), torch.float32), notes


def _notes(model: str | Path) -> dict[str, str]:
    """The notes in the metadata of a weights file, such as licence and training data."""
    path = Path(model)
    if str(model) in weights.BUILTIN:
        path = Path(str(resources.files("espan"))) / "builtin" / weights.BUILTIN[str(model)]
    if path.suffix != ".safetensors":
        return {}
    with safe_open(path, framework="pt") as file:
        return {key: value for key, value in (file.metadata() or {}).items() if key != "espan"}


@torch.inference_mode()
def difference(run: Callable[[Tensor], Tensor], net: Network, sizes: Sequence[Size]) -> float:
    """The largest difference between run(x) and net(x) for images of these sizes."""
    generator, largest = torch.Generator().manual_seed(0), 0.0
    for height, width in sizes:
        # Smooth, like real images: results for noise exceed 0..1, where rounding does not matter.
        small = torch.rand(1, 3, height // 4 + 2, width // 4 + 2, generator=generator)
        x = F.interpolate(small, (height, width), mode="bicubic").clamp(0, 1)
        largest = max(largest, (run(x) - net(x)).abs().max().item(), key=_nan_last)
    return largest


def _nan_last(value: float) -> tuple[bool, float]:
    return value != value, value


def description(net: Network, notes: dict[str, str]) -> dict[str, str]:
    """The metadata of an exported file; entries for this network override `notes`."""
    return {
        **notes,
        "arch": type(net).__name__,
        "config": json.dumps(net.config),
        "scale": str(net.scale),
        "radius": str(net.radius),
        "range": "0..1",
        "channels_order": "RGB",
        "producer": f"espan {__version__}",
    }


def _write_onnx(
    net: Network, dtype: torch.dtype, size: Size | None, notes: dict[str, str], path: Path
) -> None:
    extra("onnx", "export to ONNX", "export")
    extra("onnxruntime", "export to ONNX", "export")
    path.write_bytes(onnx_bytes(net, dtype, size, description(net, notes)))


def _write_program(
    net: Network, dtype: torch.dtype, size: Size | None, notes: dict[str, str], path: Path
) -> None:
    dimensions = zip((0, 2, 3), ("batch", "height", "width"), strict=True)
    free = None if size else ({i: torch.export.Dim(name) for i, name in dimensions},)
    pixels = example(size, 1 if size else 2)
    program = torch.export.export(deployed(net, dtype), (pixels,), dynamic_shapes=free)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # contains folder names of this machine
    metadata = {"espan.json": json.dumps(description(net, notes))}
    with path.open("wb") as file:
        torch.export.save(program, file, extra_files=metadata)


def _read_program(path: Path) -> Callable[[Tensor], Tensor]:
    with path.open("rb") as file:
        return torch.export.load(file).module()


def _write_safetensors(
    net: Network, dtype: torch.dtype, _size: Size | None, notes: dict[str, str], path: Path
) -> None:
    if not isinstance(net, SPAN):
        path.write_bytes(weights.to_bytes(net, dtype, notes))
        return
    # Without our own metadata, with which `load` would expect our keys.
    state = {
        key: tensor.to(dtype).clone(memory_format=torch.contiguous_format)
        for key, tensor in to_spandrel_layout(net).items()
    }
    path.write_bytes(to_safetensors(state, metadata=description(net, notes)))
