"""`upscale`, a shortcut for `Upscaler` that caches the last few upscalers."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, overload

from numpy.typing import NDArray
from torch import nn

from espan.checkpoints.weights import Model, model_for
from espan.errors import WeightsError
from espan.images.adapt import AnyImage, Each, File, FromFile, Given, One, PixelType, Written
from espan.images.files import Data
from espan.options import (
    LIMITS,
    BackendName,
    Device,
    Dtype,
    Limits,
    NonFinite,
    Tile,
    UpscalerKeywords,
    UpscalerOptions,
)
from espan.sizes import Size, check_scale
from espan.system.paths import as_path, is_file
from espan.upscaler import Upscaler

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Keywords(UpscalerKeywords, total=False):
    """Keywords of `upscale` besides scale, output and format."""

    model: Model


@overload
def upscale(image: One, scale: float | Size = 4, **more: "Unpack[Keywords]") -> One: ...
@overload
def upscale(
    image: NDArray[PixelType], scale: float | Size = 4, **more: "Unpack[Keywords]"
) -> NDArray[PixelType]: ...
@overload
def upscale(
    image: File, scale: float | Size = 4, *, output: None = None, **more: "Unpack[Keywords]"
) -> FromFile: ...
@overload
def upscale(
    image: File | Data, scale: float | Size = 4, *, output: File, **more: "Unpack[Keywords]"
) -> Path: ...
@overload
def upscale(
    image: Data,
    scale: float | Size = 4,
    *,
    output: None = None,
    format: str | None = None,
    **more: "Unpack[Keywords]",
) -> bytes: ...
@overload
def upscale(
    image: File | Data,
    scale: float | Size = 4,
    *,
    output: Written,
    format: str | None = None,
    **more: "Unpack[Keywords]",
) -> Written: ...
@overload
def upscale(
    image: tuple[Each, ...], scale: float | Size = 4, **more: "Unpack[Keywords]"
) -> tuple[Each, ...]: ...
@overload
def upscale(
    image: tuple[File, ...], scale: float | Size = 4, **more: "Unpack[Keywords]"
) -> tuple[FromFile, ...]: ...
@overload
def upscale(
    image: tuple[Given, ...], scale: float | Size = 4, **more: "Unpack[Keywords]"
) -> tuple[AnyImage, ...]: ...
@overload
def upscale(
    image: Sequence[Each], scale: float | Size = 4, **more: "Unpack[Keywords]"
) -> list[Each]: ...
@overload
def upscale(
    image: Sequence[File], scale: float | Size = 4, **more: "Unpack[Keywords]"
) -> list[FromFile]: ...
@overload
def upscale(
    image: Sequence[Given], scale: float | Size = 4, **more: "Unpack[Keywords]"
) -> list[AnyImage]: ...
def upscale(
    image: Any,
    scale: float | Size = 4,
    *,
    model: Model = None,
    device: Device = "auto",
    dtype: Dtype = "auto",
    backend: BackendName = "auto",
    tile: Tile = "auto",
    nonfinite: NonFinite = "error",
    limits: Limits = LIMITS,
    output: File | BinaryIO | None = None,
    format: str | None = None,
) -> Any:
    """`Upscaler(model, ...)(image, scale)`, with a cache of the last few upscalers.

    Args:
        image: a PIL image, an array (H, W) or (H, W, C), a tensor (C, H, W) or (N, C, H, W), the
            path of a file, its bytes, an open binary file, or a list or tuple of these; see
            `Upscaler.__call__`.
        scale: a number from 1 to 64, or an `espan.Size`.
        model: a built-in name, a weights file or a network; None is the built-in network for
            `scale`, rounded up to a network's scale, at most 4.
        device, dtype, backend, tile, nonfinite, limits: as for `Upscaler`.
        output: for a path, bytes or an open file: the path or open binary file to write to.
        format: format to write for bytes and open files: png, jpg, ...; None keeps the input's.

    Returns:
        An image of the same kind with round(H * scale) by round(W * scale) pixels, or the size from
        a `Size`. A path gives a PIL image or an `Image16`, bytes and open files give bytes. With
        `output`, returns that.

    Raises:
        EspanError: as for `Upscaler` and its calls; WeightsError, InputError, OutputError and
            DeviceError are subclasses.
    """
    options = UpscalerOptions(device, dtype, backend, tile, nonfinite, limits)
    if isinstance(model, nn.Module):  # not cached: its weights may change between calls
        upscaler = Upscaler.from_options(model, options)
    else:
        named = as_path(model_for(scale) if model is None else model, "model", WeightsError)
        changed = named.stat().st_mtime_ns if is_file(named) else None
        upscaler = _cached(str(named), changed, options)
    call: Any = upscaler  # no overload accepts a union of all kinds of output
    return call(image, scale, output=output, format=format)


def prepared(model: Model, scale: float | Size, options: UpscalerOptions) -> Upscaler:
    """The upscaler of a model, or of the built-in network for `scale` if it is None."""
    check_scale(scale, 1)
    return Upscaler.from_options(model_for(scale) if model is None else model, options)


@functools.lru_cache(maxsize=4)
def _cached(model: str, changed: int | None, options: UpscalerOptions) -> Upscaler:
    """`changed`, the file's modification time, invalidates the cache for rewritten files."""
    return Upscaler.from_options(model, options)
