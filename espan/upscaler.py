"""`Upscaler`: a network held ready for pictures of every kind, and `upscale`, its short form."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from espan.backends.select import BACKENDS
from espan.checkpoints.weights import BUILTIN, load
from espan.errors import DeviceError, InputError, LimitError
from espan.execution import streaming
from espan.execution.runner import Runner
from espan.images import files
from espan.images.adapt import from_any
from espan.images.alpha import BYTES, bleed, enlarge_alpha, resize_into
from espan.images.pixels import finite
from espan.networks.models import Network
from espan.system import memory, shutdown
from espan.system.devices import pick_device, pick_dtype

_PIL_COPY = 4  # bytes per pixel of the result: PIL keeps its own

Progress = Callable[[int, int], None]


class Upscaler:
    """A network held ready to upscale pictures. Callable, and safe to call from several threads.

    model: a built-in name, a weights file, or a network; None is the built-in one of scale 4.
    device: "auto", "cpu", "cuda", "cuda:1", ... dtype: "auto", "fp32", "fp16", "bf16" or, on a GPU,
    "tf32": float32 whose convolutions may be multiplied in TF32, which "fp32" never does; "auto"
    keeps fp32 for pictures of more than 8 bits. backend: "auto", or one to insist on:
    "cuda", "triton" (kernels; see espan_kernels.explain), "eager" (PyTorch's own operators),
    "compile" (torch.compile: half a minute before the first picture, faster ones after it), or, on
    a CPU, "openvino" and "onnx" (OpenVINO and ONNX Runtime, which come with extras).
    tile: "auto", None (never cut), an int or (height, width) in input pixels, halo not counted.
    In float32 the result does not depend on `tile`; in half precision only its rounding does.
    nonfinite: "error" refuses a picture with NaN or infinite values; "replace" takes 0 for NaN and
    -inf, 1 for inf.
    limits: which picture files are read (`espan.Limits`).

    Raises WeightsError or InputError for the model, DeviceError for device, dtype and backend,
    InputError for `tile` and `nonfinite`.
    """

    def __init__(
        self,
        model: str | Path | nn.Module | None = None,
        *,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        backend: str = "auto",
        tile: str | int | tuple[int, int] | None = "auto",
        nonfinite: str = "error",
        limits: files.Limits = files.LIMITS,
    ):
        if isinstance(model, nn.Module) and not isinstance(model, Network):
            raise InputError(f"model: expected a network of espan, got {type(model).__name__}")
        net = model if isinstance(model, Network) else load(model or model_for(4))
        if backend not in BACKENDS:
            raise DeviceError(f"backend: expected one of {', '.join(BACKENDS)}, got {backend!r}")
        if nonfinite not in ("error", "replace"):
            raise InputError(f"nonfinite: expected error or replace, got {nonfinite!r}")
        self.nonfinite = nonfinite
        self.device = pick_device(device)
        self.dtype = pick_dtype(dtype, self.device, backend)
        self.tile = _check_tile(tile)
        self.limits = limits
        self.scale, self.radius = net.scale, net.radius
        low_precision = dtype != "auto"  # else only what has 8 bits is computed in half precision
        shutdown.prepare_for_forks()
        self._arguments = net, str(self.device), dtype, backend, tile, nonfinite, limits
        self._runner = Runner(
            net, self.device, self.dtype, backend, self.tile, low_precision, dtype == "tf32"
        )

    def __reduce__(self):
        """Another process makes its own, of the same network."""
        model, *rest = self._arguments
        options = dict(
            zip(("device", "dtype", "backend", "tile", "nonfinite", "limits"), rest, strict=True)
        )
        return functools.partial(Upscaler, **options), (model,)

    @property
    def redone(self) -> int:
        """Tiles so far that overflowed in half precision and were computed again in float32."""
        return self._runner.redone

    @property
    def redone_here(self) -> int:
        """Those of the thread that asks: the difference round a call is what it cost."""
        return self._runner.redone_here

    def explain(self) -> str:
        """Who computes pictures of 8 bits, step by step, and why nobody faster does."""
        return self._runner.explain()

    def __call__(
        self,
        image: Any,
        scale: float | None = None,
        *,
        output: str | Path | None = None,
        progress: Progress | None = None,
    ) -> Any:
        """`image` made `scale` times larger (the network's own scale by default).

        PIL image, numpy array (HW, HWC), tensor (CHW, NCHW), or a list of these: the result is of
        the same kind, mode, dtype, layout, device and range (uint8, uint16, or float 0..1), its
        size exactly (round(H * scale), round(W * scale)). A path gives a PIL image (an
        `Image16` for 16-bit colour), or, with `output`, a file and its path. Other scales than the
        network's go through the network and a high-quality downscale. `progress(done, total)` is
        called after every tile, in input pixels of the picture or batch under way. float64 is
        computed in float32.

        Raises InputError (LimitError, NonFiniteError) for a picture that cannot be used,
        DeviceError where not even the smallest tile fits, DeviceLostError where a GPU failed.
        """
        scale = self.scale if scale is None else check_scale(scale, self.scale)
        if output is not None and not isinstance(image, str | Path):
            raise InputError("output: only a picture given by its path can be written to a file")
        if isinstance(image, list | tuple):
            results = [self(each, scale, progress=progress) for each in image]
            return results if isinstance(image, list) else tuple(results)
        if isinstance(image, str | Path):
            return self._upscale_file(image, scale, output, progress)
        if self.nonfinite == "replace":
            image = finite(image)
        if isinstance(image, Tensor) and image.ndim == 4:
            return self._upscale_batch(image, scale, progress)
        picture = from_any(image)
        planes = picture.planes[None]
        copy = _PIL_COPY if isinstance(image, Image.Image) else 0
        return picture.finish(
            self._upscale(planes, lambda *size: picture.new(*size)[None], scale, progress, copy)[0]
        )

    def _upscale_file(self, path, scale: float, output, progress: Progress | None) -> Any:
        image = files.read(path, scale=scale, **vars(self.limits))
        if output is None:
            return self(image, scale, progress=progress)
        # Say what cannot be written before the work, not after it.
        size = round(image.width * scale), round(image.height * scale)
        files.check_output(output, image.mode, size)
        return streaming.upscale_to(output, self, image, scale, progress)

    def _upscale_batch(self, batch: Tensor, scale: float, progress: Progress | None) -> Tensor:
        pictures = [from_any(each) for each in batch]
        if pictures and pictures[0].has_alpha:
            return torch.stack([self(each, scale, progress=progress) for each in batch])

        def new(height: int, width: int) -> Tensor:
            return batch.new_empty((*batch.shape[:2], height, width), requires_grad=False)

        if not pictures:
            return new(*(round(side * scale) for side in batch.shape[2:]))
        return self._upscale(batch.detach(), new, scale, progress)

    def _upscale(
        self,
        planes: Tensor,
        new: Callable[[int, int], Tensor],
        scale: float,
        progress: Progress | None,
        copy: int = 0,
    ) -> Tensor:
        """(N, C, H, W), one picture if it has alpha, enlarged into what `new(H, W)` gives.

        copy: bytes per pixel of the result that the caller will take for one of his own.
        """
        _, channels, height, width = planes.shape
        size = round(height * scale), round(width * scale)
        self._check_memory(planes, size, scale, copy)

        out = large = new(*size)
        if scale != self.scale:
            large = new(height * self.scale, width * self.scale)
        source, target, result = planes, large, out
        if has_alpha := channels in (2, 4):
            source = bleed(planes[0, :-1], planes[0, -1])[None]
            target, result = large[:, :-1], out[:, :-1]
        with shutdown.under_way(progress or _nobody) as step:
            self._runner.run(source, target, step)
        if scale != self.scale:
            for each, resized in zip(target, result, strict=True):
                resize_into(each, resized)
        if has_alpha:
            enlarge_alpha(planes[0, -1:], out[0, -1:])
        return out

    def _check_memory(self, planes: Tensor, size, scale: float, copy: int) -> None:
        """LimitError before any work if the result and one tile cannot fit in host memory."""
        need, free = self._need(planes, size, scale != self.scale, copy), memory.available()
        if free is not None and need > free:
            height, width = planes.shape[2:]
            raise LimitError(
                f"{width} x {height} pixels x{scale:g} need {need / 2**20:,.0f} MiB of memory, "
                f"{free / 2**20:,.0f} MiB are free (smaller tiles need less)"
            )

    def _need(self, planes: Tensor, size, resized: bool, copy: int) -> int:
        """Bytes of host memory that the result and one tile take."""
        n, channels, height, width = planes.shape
        need = self._runner.host_memory(n, height, width, planes.dtype)
        need += n * size[0] * size[1] * copy
        if channels in (2, 4):
            need += BYTES * height * width
        if planes.device.type == "cpu":
            pixels = size[0] * size[1] + resized * height * width * self.scale**2
            need += n * pixels * channels * planes.element_size()
        return need


@functools.lru_cache(maxsize=4)
def _held(model, changed, device, dtype, backend, tile, nonfinite, limits) -> Upscaler:
    """`changed`, a file's time of change, makes a rewritten weights file another model."""
    options = {"device": device, "dtype": dtype, "backend": backend, "tile": tile}
    return Upscaler(model, **options, nonfinite=nonfinite, limits=limits)


def upscale(
    image: Any,
    scale: float = 4,
    *,
    model: str | Path | nn.Module | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    backend: str = "auto",
    tile: str | int | tuple[int, int] | None = "auto",
    nonfinite: str = "error",
    limits: files.Limits = files.LIMITS,
    output: str | Path | None = None,
) -> Any:
    """`Upscaler(model, ...)(image, scale)`; the last few upscalers are kept for the next call.

    model: None takes the built-in network whose scale is `scale` or the next larger.
    """
    tile = tuple(tile) if isinstance(tile, list) else tile
    options = (device, dtype, backend, tile, nonfinite, limits)
    if isinstance(model, nn.Module):  # its weights may change between two calls
        held = _held.__wrapped__(model, None, *options)
    else:
        model = str(model or model_for(scale))
        changed = Path(model).stat().st_mtime_ns if Path(model).is_file() else None
        held = _held(model, changed, *options)
    return held(image, scale, output=output)


def model_for(scale: float) -> str:
    """The built-in network whose scale is `scale` or the next larger one."""
    scales = {int(name[-1]): name for name in BUILTIN}
    check_scale(scale, max(scales))
    return scales[min(each for each in scales if each >= scale)]


def check_scale(scale: float, largest: int) -> float:
    if isinstance(scale, bool) or not isinstance(scale, int | float | np.number):
        raise InputError(f"scale: expected a number, got {scale!r}")
    if not 1 <= scale <= largest:
        more = "; for more, upscale the result again" if scale > largest else ""
        raise InputError(
            f"scale: expected 1 to {largest} (the network's own scale), got {scale:g}{more}"
        )
    return scale


def _check_tile(tile: Any) -> Any:
    if tile is None or tile == "auto":
        return tile
    sides = (tile, tile) if isinstance(tile, int) else tile
    good = isinstance(sides, tuple | list) and len(sides) == 2
    if not good or not all(type(side) is int and side >= 1 for side in sides):
        raise InputError(f'tile: expected "auto", None, an int or (height, width), got {tile!r}')
    return tuple(sides)


def _nobody(_done: int, _total: int) -> None:
    """The progress nobody asked for."""
