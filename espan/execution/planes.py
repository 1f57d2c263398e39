"""Whole images as planes through a network: colours by the runner, alpha beside them."""

from collections.abc import Callable

from torch import Tensor

from espan.execution import host_memory
from espan.execution.runner import Runner
from espan.images.alpha import bleed, enlarge_alpha, resize_into
from espan.options import Progress
from espan.system import shutdown


def enlarge(
    runner: Runner,
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
    host_memory.check(runner, planes, size, scale, copy)

    out = large = new(*size)
    if scale != runner.scale:
        large = new(height * runner.scale, width * runner.scale)
    source, target, result = planes, large, out
    if has_alpha := channels in (2, 4):
        source = bleed(planes[0, :-1], planes[0, -1])[None]
        target, result = large[:, :-1], out[:, :-1]
    with shutdown.under_way(progress or _nobody) as step:
        runner.run(source, target, step)
    if scale != runner.scale:
        for each, resized in zip(target, result, strict=True):
            resize_into(each, resized)
    if has_alpha:
        enlarge_alpha(planes[0, -1:], out[0, -1:])
    return out


def _nobody(_done: int, _total: int) -> None:
    """The progress nobody asked for."""
