"""Whole images as planes through a network: colours by the runner, alpha beside them."""

from collections.abc import Callable, Sequence

from torch import Tensor

from espan.execution import host_memory
from espan.execution.runner import Runner, Step
from espan.images.alpha import bleed, enlarge_alpha, resize_into
from espan.options import Progress
from espan.sizes import passes
from espan.system import shutdown

New = Callable[[int, int], Tensor]


def enlarge(
    runner: Runner,
    planes: Tensor,
    new: New,
    size: tuple[int, int],
    progress: Progress | None,
    copy: int = 0,
) -> Tensor:
    """(N, C, H, W), one picture if it has alpha, made `size` (height, width) in what `new(H, W)`
    gives. `progress` counts the pixels that enter the network, in all passes.

    copy: bytes per pixel of the result that the caller will take for one of his own.
    """
    host_memory.check(runner, planes, size, copy)
    sizes = passes(planes.shape[2:], size, runner.scale)
    with shutdown.under_way(progress or nobody) as step:
        if not sizes:
            out = new(*size)
            _resized(planes, out)
            step(planes[:, 0].numel(), planes[:, 0].numel())
            return out
        counted = Counted(step, planes, sizes)
        for each in sizes:
            planes = enlarge_once(runner, planes, new, each, counted)
    return planes


class Counted:
    """One count for several passes: called with what is done of the pass under way."""

    def __init__(self, step: Step, planes: Tensor, sizes: Sequence[tuple[int, int]]):
        n, _, height, width = planes.shape
        inputs = [(height, width), *sizes[:-1]]
        self.step, self.before = step, 0
        self.total = sum(n * each[0] * each[1] for each in inputs)

    def __call__(self, done: int, total: int) -> None:
        self.step(self.before + done, self.total)
        if done == total:
            self.before += total


def enlarge_once(
    runner: Runner, planes: Tensor, new: New, size: tuple[int, int], step: Step
) -> Tensor:
    """One pass of the network, which reaches `size`, and what is beyond that filtered away."""
    _, channels, height, width = planes.shape
    whole = height * runner.scale, width * runner.scale
    out = large = new(*size)
    if whole != size:
        large = new(*whole)
    source, target, result = planes, large, out
    if has_alpha := channels in (2, 4):
        source = bleed(planes[0, :-1], planes[0, -1])[None]
        target, result = large[:, :-1], out[:, :-1]
    runner.run(source, target, step)
    if whole != size:
        for each, resized in zip(target, result, strict=True):
            resize_into(each, resized)
    if has_alpha:
        enlarge_alpha(planes[0, -1:], out[0, -1:])
    return out


def _resized(planes: Tensor, out: Tensor) -> None:
    """`planes` made smaller into `out`, without a network."""
    colours = planes
    if has_alpha := planes.shape[1] in (2, 4):
        colours = bleed(planes[0, :-1], planes[0, -1])[None]
    for each, resized in zip(colours, out[:, : colours.shape[1]], strict=True):
        resize_into(each, resized)
    if has_alpha:
        enlarge_alpha(planes[0, -1:], out[0, -1:])


def nobody(_done: int, _total: int) -> None:
    """The progress nobody asked for."""
