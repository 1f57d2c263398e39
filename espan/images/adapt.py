"""Converts images of every kind to channels-first pixels, and results to the caller's kind.

This module handles PIL, numpy and torch conventions, but no files and no networks.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from espan.errors import InputError, NonFiniteError
from espan.images import pil
from espan.images.image16 import Image16
from espan.images.pixels import WHITE
from espan.system.pinned import Empty, pageable

# The types of callers' images. Type variables: a result has the type of its image.
AnyImage: TypeAlias = Image.Image | Image16 | NDArray[Any] | Tensor
File: TypeAlias = str | Path
FromFile: TypeAlias = Image.Image | Image16
Given: TypeAlias = AnyImage | File
One = TypeVar("One", Image.Image, Image16, Tensor)
Each = TypeVar("Each", Image.Image, Image16, Tensor, NDArray[Any])
Written = TypeVar("Written", bound=BinaryIO)
PixelType = TypeVar("PixelType", bound=np.uint8 | np.uint16 | np.floating[Any])

_DTYPES = "uint8, uint16 or float"

DEEPEST = 8  # levels of nested lists


@dataclass
class Adapted:
    """An image in channels-first layout, with functions that make a result of the caller's type.

    `pixels`: (C, H, W) view of the caller's image, C = 1 grey, 2 grey + alpha, 3 RGB, 4 RGBA.
    `new(height, width)` allocates a result of the same layout, possibly with one more channel,
    which becomes opaque. `finish(pixels)` converts a result to the caller's type.
    """

    pixels: Tensor
    new: Callable[[int, int], Tensor]
    finish: Callable[[Tensor], Any]

    def __post_init__(self) -> None:
        channels, height, width = self.pixels.shape
        if channels not in (1, 2, 3, 4):
            raise InputError(f"image: expected 1 to 4 channels, got {channels}")
        if height == 0 or width == 0:
            raise InputError(f"image: expected at least 1 x 1 pixels, got {width} x {height}")
        if not self.pixels.is_floating_point():
            return
        low, high = (value.item() for value in torch.aminmax(self.pixels))
        if not (np.isfinite(low) and np.isfinite(high)):
            raise NonFiniteError("image: has NaN or infinite values")
        # Filters overshoot 0..1 a little. Floats in 0..255 are another convention.
        if low < -1 or high > 2:
            raise InputError(
                f"image: float values are 0..1, got {low:g}..{high:g}; divide by the white level"
            )


def from_any(image: Any, empty: Empty = pageable) -> Adapted:
    """Adapts a PIL image, an Image16, a numpy array (HW, HWC) or a tensor (CHW).

    empty: allocates the memory of a result on the host.

    Raises InputError for any other type, mode, shape or dtype; NonFiniteError for NaN or inf.
    """
    if isinstance(image, Image.Image):
        return _from_pil(image, empty)
    if isinstance(image, Image16):
        arrays = _from_numpy(image.pixels, empty)
        return replace(arrays, finish=lambda pixels: Image16(arrays.finish(pixels), image.info))
    if isinstance(image, np.ma.MaskedArray):
        raise InputError("image: a masked array, whose mask would be ignored; fill it first")
    if isinstance(image, np.ndarray):
        return _from_numpy(image, empty)
    if isinstance(image, Tensor):
        return _from_tensor(image, empty)
    raise InputError(
        "image: expected a PIL image, a numpy array, a torch tensor, a path, bytes, an open "
        f"file or a list of these, got {type(image).__name__}"
    )


def check_nesting(image: Any, depth: int = 1) -> None:
    """Raises InputError for lists nested too deep, such as a list that contains itself."""
    if not isinstance(image, list | tuple):
        return
    if depth > DEEPEST:
        raise InputError(
            f"image: expected lists at most {DEEPEST} deep; this one is deeper or contains itself"
        )
    for each in image:
        check_nesting(each, depth + 1)


def each(image: Any) -> Iterator[Any]:
    """Yields the images of nested lists in order, or the single image."""
    if isinstance(image, list | tuple):
        for one in image:
            yield from each(one)
    else:
        yield image


def as_nested(image: Any, results: Iterator[Any]) -> Any:
    """Nests results, in the order of `each`, in lists and tuples like those of `image`."""
    if not isinstance(image, list | tuple):
        return next(results)
    made = [as_nested(one, results) for one in image]
    return made if isinstance(image, list) else tuple(made)


def _from_tensor(image: Tensor, empty: Empty) -> Adapted:
    if image.layout != torch.strided or image.is_meta:
        raise InputError("image: expected a dense tensor with data")
    if image.ndim != 3:
        raise InputError(
            f"image: tensors are (C, H, W) or (N, C, H, W), got shape {tuple(image.shape)}"
        )
    if image.dtype not in WHITE:
        raise InputError(f"image: expected {_DTYPES}, got {image.dtype}")
    if image.requires_grad and torch.is_grad_enabled():
        raise InputError(
            "image: requires_grad, and results have no gradient; pass image.detach(), or call "
            "under torch.no_grad()"
        )

    def new(height: int, width: int) -> Tensor:
        return new_tensor(image, (image.shape[0], height, width), empty)

    return Adapted(image.detach(), new, lambda pixels: pixels)


def new_tensor(image: Tensor, shape: Sequence[int], empty: Empty) -> Tensor:
    """Allocates a result for the tensor `image`, on its device."""
    if image.device.type == "cpu" and type(image) is Tensor:
        return empty(shape, image.dtype)
    return image.new_empty(shape, requires_grad=False)


def _from_numpy(image: np.ndarray, empty: Empty) -> Adapted:
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 2, 3, 4)):
        raise InputError(
            f"image: arrays are (H, W) or (H, W, C) with 1 to 4 channels, got shape {image.shape}"
        )
    dtype = image.dtype.newbyteorder("=")
    if dtype not in (np.uint8, np.uint16, np.float16, np.float32, np.float64):
        raise InputError(f"image: expected {_DTYPES}, got {image.dtype}")
    pixels = image if image.ndim == 3 else image[:, :, None]
    if any(s < 0 or s % dtype.itemsize for s in pixels.strides) or not image.dtype.isnative:
        pixels = np.ascontiguousarray(pixels, dtype)  # torch has no such strides
    if not pixels.flags.writeable:
        pixels = pixels.copy()  # torch cannot share read-only memory

    source = torch.from_numpy(pixels).permute(2, 0, 1)

    def new(height: int, width: int) -> Tensor:
        return empty((height, width, pixels.shape[2]), source.dtype).permute(2, 0, 1)

    def finish(result: Tensor) -> np.ndarray:
        array = result.permute(1, 2, 0).numpy()
        return array if image.ndim == 3 else array[:, :, 0]

    return Adapted(source, new, finish)


def _frame_count(image: Image.Image) -> int:
    try:
        return getattr(image, "n_frames", 1)
    except ValueError:  # its file is closed; one frame is loaded
        return 1


def _from_pil(image: Image.Image, empty: Empty) -> Adapted:
    frames = _frame_count(image)
    if frames > 1 and getattr(image, "format", None) != "MPO":  # the first frame is the image
        tiff = getattr(image, "format", None) == "TIFF"
        others = "the file's path with a .tif as output" if tiff else "espan.upscale_animation"
        raise InputError(
            f"image: has {frames} frames or pages; pass copy() of one frame, or use {others}"
        )
    plain = _to_plain_mode(image)
    arrays = _from_numpy(pil.pixels(plain), empty)

    def new(height: int, width: int) -> Tensor:
        # PIL stores four bytes per pixel. A GPU writes four at no extra cost. A CPU writes three
        # faster, and Pillow then converts them.
        if plain.mode != "RGB" or empty is pageable:
            return arrays.new(height, width)
        return empty((height, width, 4), torch.uint8).permute(2, 0, 1)

    def finish(pixels: Tensor) -> Image.Image:
        result = pil.image(pixels.permute(1, 2, 0).numpy(), plain.mode)
        if image.mode == "P":
            method = Image.Quantize.FASTOCTREE if result.mode == "RGBA" else None
            result = result.quantize(256, method=method)
        elif image.mode == "1":
            result = result.point(lambda value: 255 * (value >= 128), mode="1")
        result.info = {key: value for key, value in image.info.items() if key != "transparency"}
        return result

    return Adapted(arrays.pixels, new, finish)


def _to_plain_mode(image: Image.Image) -> Image.Image:
    """Expands palettes and one-bit images, and converts a transparent colour to alpha."""
    transparent = "transparency" in image.info
    if image.mode == "P":
        return image.convert("RGBA" if transparent else "RGB")
    if image.mode == "1" and not transparent:
        return image.convert("L")
    if image.mode in ("1", "I;16", "I;16B") and transparent:
        raise InputError(
            f"image: PIL mode {image.mode} with a colour marked transparent is not supported; "
            "convert it to LA first"
        )
    if image.mode in ("L", "RGB") and transparent:
        return image.convert({"L": "LA", "RGB": "RGBA"}[image.mode])
    if image.mode not in ("L", "LA", "RGB", "RGBA", *pil.DEEP):
        raise InputError(
            f"image: PIL mode {image.mode} is not supported; expected 1, L, LA, P, RGB, RGBA or "
            "I;16 (convert it first, with its colour profile)"
        )
    return image
