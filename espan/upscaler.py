"""`Upscaler`: a network held ready, and the tile loop that takes any picture through it.

Pictures and results stay where they are; only tiles travel to the device.
"""

import functools
import logging
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from espan import files, memory
from espan.alpha import bleed
from espan.errors import DeviceError, InputError, LimitError, NonFiniteError
from espan.folding import fold
from espan.machine import pick_device, pick_dtype
from espan.model import Network
from espan.picture import WHITE, Picture, from_any
from espan.resize import resize
from espan.tiling import Tile
from espan.weights import BUILTIN, load

log = logging.getLogger("espan")

# Input pixels per tile with "auto", halo included. On a CPU, larger tiles leave the caches and
# smaller ones spend their time in halos (docs/performance.md); a GPU wants all the work it can get.
AUTO_TILE = {"cpu": 512 * 512, "cuda": 1024 * 1024}
SMALLEST_TILE = 16

_BLEED_BYTES = 64  # per pixel of a transparent picture: colour and alpha in float32, twice over

_FLAGS = threading.Lock()

BACKENDS = ("auto", "eager")

Progress = Callable[[int, int], None]


class Upscaler:
    """A network held ready to upscale pictures. Callable, and safe to call from several threads.

    model: a built-in name, a weights file, or a network; None is the built-in one of scale 4.
    device: "auto", "cpu", "cuda", "cuda:1", ... dtype: "auto", "fp32", "fp16" or "bf16"; "auto"
    keeps float32 for pictures of more than 8 bits on a CPU. backend: "auto" or "eager".
    tile: "auto", None (never cut), an int or (height, width) in input pixels, halo not counted.
    The result does not depend on `tile`. `redone` counts the tiles that overflowed in half
    precision and were computed again in float32.

    Raises WeightsError for the model, DeviceError for device, dtype and backend.
    """

    def __init__(
        self,
        model: str | Path | nn.Module | None = None,
        *,
        device: str | torch.device = "auto",
        dtype: str | torch.dtype = "auto",
        backend: str = "auto",
        tile: str | int | tuple[int, int] | None = "auto",
    ):
        if isinstance(model, nn.Module) and not isinstance(model, Network):
            raise InputError(f"model: expected a network of espan, got {type(model).__name__}")
        net = model if isinstance(model, Network) else load(model or model_for(4))
        if backend not in BACKENDS:
            raise DeviceError(f"backend: expected {' or '.join(BACKENDS)}, got {backend!r}")
        self.device = pick_device(device)
        self.dtype = pick_dtype(dtype, self.device)
        self._wide = self.device.type != "cpu" or dtype != "auto"
        self.tile = _check_tile(tile)
        self.scale, self.radius = net.scale, net.radius
        self.channels = net.config["channels"]
        self.redone = 0
        self._lock = threading.Lock()
        net = net if net.folded else fold(net)
        self._nets = {each: copy_to(net, self.device, each) for each in {self.dtype, torch.float32}}

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
        size exactly (round(H * scale), round(W * scale)). A path gives a PIL image, or, with
        `output`, a file and its path. Other scales than the network's go through the network
        and a high-quality downscale. `progress(done, total)` is called after every tile.

        Raises InputError (LimitError, NonFiniteError) for a picture that cannot be used.
        """
        scale = self.scale if scale is None else check_scale(scale, self.scale)
        if output is not None and not isinstance(image, str | Path):
            raise InputError("output: only a picture given by its path can be written to a file")
        if isinstance(image, list | tuple):
            return type(image)(self(each, scale, progress=progress) for each in image)
        if isinstance(image, str | Path):
            return self._upscale_file(image, scale, output, progress)
        if isinstance(image, Tensor) and image.ndim == 4:
            size = [round(side * scale) for side in image.shape[2:]]
            results = [self(each, scale, progress=progress) for each in image]
            return torch.stack(results) if results else image.new_empty(0, image.shape[1], *size)
        picture = from_any(image)
        return picture.finish(self._upscale(picture, scale, progress))

    def _upscale_file(self, path, scale: float, output, progress: Progress | None) -> Any:
        image = files.read(path, scale=scale)
        if output is not None:  # say what cannot be written before the work, not after it
            size = round(image.width * scale), round(image.height * scale)
            files.check_output(output, image.mode, size)
        result = self(image, scale, progress=progress)
        return result if output is None else files.write(output, result)

    def _upscale(self, picture: Picture, scale: float, progress: Progress | None) -> Tensor:
        planes = picture.planes
        _, height, width = planes.shape
        size = round(height * scale), round(width * scale)
        tile = self._tile_size(height, width)
        self._check_memory(planes, size, tile, resized=scale != self.scale)

        out = large = picture.new(*size)
        if scale != self.scale:
            large = picture.new(height * self.scale, width * self.scale)
        passes = [(planes, large)]
        if picture.has_alpha:
            colour, alpha = planes[:-1], planes[-1:]
            passes = [(bleed(colour, alpha[0]), large[:-1])]
            if (alpha.float() == alpha[0, 0, 0].item()).all():
                large[-1] = alpha[0, 0, 0]
            else:
                passes.append((alpha, large[-1:]))
        step = _count_steps(progress, len(passes))
        for source, target in passes:
            self._run(source, target, tile, step)
        if scale != self.scale:
            _resize_into(large, out)
        return out

    def _run(self, source: Tensor, target: Tensor, tile: tuple[int, int], step: Progress) -> None:
        """Fills target (C, s*H, s*W) from source (C, H, W), C = 1 or 3, tile by tile."""
        _, height, width = source.shape
        pending = [*Tile(0, height, 0, width).split(*tile)][::-1]
        done = 0
        while pending:
            part = pending.pop()
            try:
                result = self._run_tile(source, part)
            except (RuntimeError, MemoryError) as error:
                if not memory.ran_out(error):
                    raise
                rows, columns = part.y1 - part.y0, part.x1 - part.x0
                if max(rows, columns) <= SMALLEST_TILE:
                    raise DeviceError(
                        f"{self.device}: out of memory even for a tile of {columns} x {rows} pixels"
                    ) from error
                tile = _half(rows), _half(columns)
                log.warning("%s: out of memory, tiles are now %d x %d", self.device, *tile[::-1])
                pending = [
                    piece for each in (*pending, part) for piece in [*each.split(*tile)][::-1]
                ]
                continue
            s = self.scale
            target[:, part.y0 * s : part.y1 * s, part.x0 * s : part.x1 * s] = result
            done += part.pixels
            step(done, height * width)

    def _run_tile(self, source: Tensor, part: Tile) -> Tensor:
        """The tile's result (C, s*h, s*w) in the source's dtype and range, without its halo."""
        _, height, width = source.shape
        around = part.with_halo(self.radius, height, width)
        white = WHITE[source.dtype]
        x = source[:, around.y0 : around.y1, around.x0 : around.x1]
        x = x.to(self.device, torch.float32).div(white).expand(3, -1, -1)[None]
        dtype = self.dtype if self._wide or source.dtype == torch.uint8 else torch.float32
        y = self._forward(x, dtype)
        if dtype != torch.float32 and not y.isfinite().all():
            log.warning("%s overflowed in a tile; it is computed again in float32", dtype)
            with self._lock:
                self.redone += 1
            y = self._forward(x, torch.float32)
        if not y.isfinite().all():
            raise NonFiniteError("the network's output is not finite, even in float32")
        s, top, left = self.scale, part.y0 - around.y0, part.x0 - around.x0
        y = y[
            0,
            :,
            top * s : (top + part.y1 - part.y0) * s,
            left * s : (left + part.x1 - part.x0) * s,
        ].float()
        if source.shape[0] == 1:
            y = y.mean(0, keepdim=True)
        y = y.clamp(0, 1).mul(white)
        return (y if source.is_floating_point() else y.round()).to(source.dtype).to(source.device)

    @torch.inference_mode()
    def _forward(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        x = x.to(dtype=dtype, memory_format=torch.channels_last)
        if self.device.type != "cuda" or dtype != torch.float32:
            return self._nets[dtype](x)
        # cuDNN's float32 convolutions are TF32 unless told otherwise, for the whole process.
        with _FLAGS, torch.backends.cudnn.flags(allow_tf32=False):
            return self._nets[dtype](x)

    def _tile_size(self, height: int, width: int) -> tuple[int, int]:
        if self.tile is None:
            return height, width
        if self.tile != "auto":
            return self.tile
        side = int(AUTO_TILE.get(self.device.type, AUTO_TILE["cpu"]) ** 0.5) - 2 * self.radius
        return side, side

    def _check_memory(
        self, planes: Tensor, size: tuple[int, int], tile: tuple[int, int], resized: bool
    ) -> None:
        """LimitError before any work if the result and one tile cannot fit in host memory."""
        channels, height, width = planes.shape
        need = _BLEED_BYTES * height * width if channels in (2, 4) else 0
        if planes.device.type == "cpu":
            pixels = size[0] * size[1] + resized * height * width * self.scale**2
            need += pixels * channels * planes.element_size()
        if self.device.type == "cpu":
            rows = min(height, tile[0] + 2 * self.radius)
            columns = min(width, tile[1] + 2 * self.radius)
            need += memory.for_pixels(rows * columns, self.channels, self.dtype)
        free = memory.available()
        if free is not None and need > free:
            raise LimitError(
                f"{width} x {height} pixels x{self.scale} need {need / 2**20:,.0f} MiB of memory, "
                f"{free / 2**20:,.0f} MiB are free (smaller tiles need less)"
            )


@functools.lru_cache(maxsize=4)
def _held(model, changed, device, dtype, backend, tile) -> Upscaler:
    """`changed`, a file's time of change, makes a rewritten weights file another model."""
    return Upscaler(model, device=device, dtype=dtype, backend=backend, tile=tile)


def upscale(
    image: Any,
    scale: float = 4,
    *,
    model: str | Path | nn.Module | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    backend: str = "auto",
    tile: str | int | tuple[int, int] | None = "auto",
    output: str | Path | None = None,
) -> Any:
    """`Upscaler(model, ...)(image, scale)`; the last few upscalers are kept for the next call.

    model: None takes the built-in network whose scale is `scale` or the next larger.
    """
    options = (device, dtype, backend, tuple(tile) if isinstance(tile, list) else tile)
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
        raise InputError(
            f"scale: expected 1 to {largest} (the network's own scale), got {scale:g}; "
            "for more, upscale the result again"
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


def copy_to(net: Network, device: torch.device, dtype: torch.dtype) -> Network:
    """A folded network of the same weights, ready to run: eval mode, channels last, no gradient."""
    copy = type(net)(**net.config)
    copy.load_state_dict(net.state_dict())
    return copy.eval().requires_grad_(False).to(device, dtype, memory_format=torch.channels_last)


def _half(side: int) -> int:
    return max(-(-side // 2), SMALLEST_TILE)


def _count_steps(progress: Progress | None, passes: int) -> Progress:
    """One count over all passes of a picture, in input pixels."""
    base = 0

    def step(done: int, total: int) -> None:
        nonlocal base
        if progress is not None:
            progress(base + done, total * passes)
        if done == total:
            base += total

    return step


def _resize_into(large: Tensor, out: Tensor) -> None:
    pixels = large.permute(1, 2, 0)
    if pixels.dtype == torch.bfloat16:
        pixels = pixels.float()
    small = resize(pixels.cpu().numpy(), tuple(out.shape[1:]))
    small = torch.from_numpy(small).permute(2, 0, 1)
    out.copy_(small.clamp(0, 1) if small.is_floating_point() else small)
