"""A network at work on a device: planes in, planes out, tile by tile, whatever memory allows.

Pictures and results stay where they are; only tiles travel to the device.
"""

import logging
import threading
from collections.abc import Callable

import torch
from torch import Tensor

from espan import memory
from espan.errors import DeviceError, NonFiniteError
from espan.folding import fold
from espan.model import Network
from espan.picture import WHITE
from espan.plan import Plan
from espan.tiling import Tile
from espan_kernels.op import DEFAULT_IMPL

log = logging.getLogger("espan")

# Input pixels per tile with "auto", halo included. On a CPU, larger tiles leave the caches and
# smaller ones spend their time in halos (docs/performance.md); a GPU wants all the work it can get.
AUTO_TILE = {"cpu": 480 * 480, "cuda": 1024 * 1024}
SMALLEST_TILE = 16

# cuDNN computes float32 in TF32 unless told otherwise, by a switch of the whole process: one
# thread at a time turns it.
_CUDNN_FLAGS = threading.Lock()

Step = Callable[[int, int], None]


class Runner:
    """Runs a network on planes (C, H, W) of any dtype a picture can have. Safe between threads.

    low_precision: whether pictures of more than 8 bits too are computed in `dtype`; else in
    float32. `redone` counts tiles that overflowed in `dtype` and were computed again in float32.
    """

    def __init__(
        self,
        net: Network,
        device: torch.device,
        dtype: torch.dtype,
        backend: str,
        tile: tuple[int, int] | str | None,
        low_precision: bool,
    ):
        net = net if net.folded else fold(net)
        self.scale, self.radius = net.scale, net.radius
        self.channels = net.config["channels"]
        self.device, self.dtype, self.tile = device, dtype, tile
        self.low_precision = low_precision
        self.redone = 0
        self._lock = threading.Lock()
        self._nets = {
            each: _with_backend(copy_to(net, device, each), backend)
            for each in {dtype, torch.float32}
        }

    def tile_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the largest tile of a picture, its halo not counted."""
        if self.tile is None:
            return height, width
        if self.tile != "auto":
            return self.tile
        side = int(AUTO_TILE.get(self.device.type, AUTO_TILE["cpu"]) ** 0.5) - 2 * self.radius
        return side, side

    def host_memory(self, height: int, width: int) -> int:
        """Bytes of host memory that the largest tile of such a picture takes."""
        if self.device.type != "cpu":
            return 0
        rows, columns = self.tile_size(height, width)
        rows = min(height, rows + 2 * self.radius)
        columns = min(width, columns + 2 * self.radius)
        return memory.for_pixels(rows * columns, self.channels)

    def run(self, source: Tensor, target: Tensor, step: Step) -> None:
        """Fills target (C, s*H, s*W) from source (C, H, W), C = 1 or 3.

        `step(done, total)` counts input pixels. Out of memory halves the tiles, from the one
        reached on; DeviceError when even the smallest does not fit.
        """
        _, height, width = source.shape
        tile = self.tile_size(height, width)
        pending = [*Tile(0, height, 0, width).split(*tile)][::-1]
        done, s = 0, self.scale
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
                pending = [p for each in (*pending, part) for p in [*each.split(*tile)][::-1]]
                continue
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
        low = self.low_precision or source.dtype == torch.uint8
        y = self._forward(x, self.dtype if low else torch.float32)
        if not y.isfinite().all():
            y = self._again_in_float32(x, y)
        s, top, left = self.scale, part.y0 - around.y0, part.x0 - around.x0
        rows = slice(top * s, (top + part.y1 - part.y0) * s)
        columns = slice(left * s, (left + part.x1 - part.x0) * s)
        y = y[0, :, rows, columns].float()
        if source.shape[0] == 1:
            y = y.mean(0, keepdim=True)
        y = y.clamp(0, 1).mul(white)
        return (y if source.is_floating_point() else y.round()).to(source.dtype).to(source.device)

    def _again_in_float32(self, x: Tensor, y: Tensor) -> Tensor:
        if y.dtype != torch.float32:
            log.warning("%s overflowed in a tile; it is computed again in float32", y.dtype)
            with self._lock:
                self.redone += 1
            y = self._forward(x, torch.float32)
        if not y.isfinite().all():
            raise NonFiniteError("the network's output is not finite, even in float32")
        return y

    @torch.inference_mode()
    def _forward(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        x = x.to(dtype=dtype, memory_format=torch.channels_last)
        if self.device.type != "cuda" or dtype != torch.float32:
            return self._nets[dtype](x)
        with _CUDNN_FLAGS:
            before = torch.backends.cudnn.allow_tf32
            torch.backends.cudnn.allow_tf32 = False
            try:
                return self._nets[dtype](x)
            finally:
                torch.backends.cudnn.allow_tf32 = before


def copy_to(net: Network, device: torch.device, dtype: torch.dtype) -> Network:
    """A folded network of the same weights, ready to run: eval mode, channels last, no gradient."""
    copy = type(net)(**net.config)
    copy.load_state_dict(net.state_dict())
    return copy.eval().requires_grad_(False).to(device, dtype, memory_format=torch.channels_last)


def _with_backend(net: Network, backend: str) -> Callable[[Tensor], Tensor]:
    """The network itself, or its plan: the same function through the ops of espan_kernels.

    "auto" is the plan on a GPU, every op taking its fastest kernel, and the network elsewhere. A
    kernel asked for by name that refuses to run here is a DeviceError with its reason.
    """
    some = next(net.parameters())
    if backend == "auto" and DEFAULT_IMPL:
        backend = DEFAULT_IMPL  # asked for by the environment variable ESPAN_IMPL
    if backend == "auto" and some.device.type == "cuda":
        return fastest_proven(net)
    run = net if backend in ("auto", "eager") else Plan(net, backend)
    try:
        with torch.inference_mode():
            run(some.new_zeros(1, 3, 8, 8))
    except ValueError as error:
        raise DeviceError(f"backend {backend!r}: {error}") from error
    return run


@torch.inference_mode()
def fastest_proven(net: Network) -> Callable[[Tensor], Tensor]:
    """The fastest form of `net` that gives the network's own picture here, on a small sample.

    A kernel may fail on a GPU, driver or compiler it has not met: it is left aside with a warning.
    """
    some = next(net.parameters())
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(1, 3, 24, 40, generator=generator).to(some.device, some.dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    want = net(x).float()
    # Half precision rounds differently in every order of summing; a wrong kernel is far off.
    allowed = (1e-3 if some.dtype == torch.float32 else 5e-2) * want.abs().max().item()
    for impl in (None, "triton"):
        try:
            plan = Plan(net, impl)
            error = (plan(x).float() - want).abs().max().item()
        except Exception as failure:
            if memory.ran_out(failure):
                raise
            reason = " ".join(str(failure).split())[:200]
        else:
            if error <= allowed:
                return plan
            reason = f"off by {error:.3g} of {want.abs().max().item():.3g}"
        log.warning("the %s kernels are left aside: %s", impl or "fastest", reason)
    return net


def _half(side: int) -> int:
    return max(-(-side // 2), SMALLEST_TILE)
