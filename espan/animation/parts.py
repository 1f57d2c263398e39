"""The parts of frames that animation files store, coded in order by several threads."""

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from typing import NamedTuple

from PIL import Image, ImageChops

from espan.execution.frames import work_in_order, workers_on_a_cpu


class Part(NamedTuple):
    """A part of a frame and the position of its upper left corner."""

    image: Image.Image
    left: int
    top: int


def coded_parts(
    frames: Iterator[Image.Image],
    code: Callable[[Image.Image], bytes],
    *,
    clearing: bool = False,
    even: bool = False,
) -> Generator[tuple[Part, bytes]]:
    """Yields (part, code(part.image)) in order; codes the next parts meanwhile.

    A part is what differs from the previous frame. clearing: frames with alpha are entire, because
    each is cleared before the next. even: positions are multiples of 2.
    """
    parts = _parts(frames, clearing, even)
    workers = workers_on_a_cpu()
    with closing(work_in_order(lambda part: code(part.image), parts, workers)) as pairs:
        yield from pairs


def _parts(frames: Iterator[Image.Image], clearing: bool, even: bool) -> Generator[Part]:
    before = None
    for frame in frames:
        box = (0, 0, *frame.size)
        if before and not (clearing and frame.mode == "RGBA"):
            # One pixel for an equal frame, to keep its duration.
            box = ImageChops.difference(frame, before).getbbox(alpha_only=False) or (0, 0, 1, 1)
        if even:
            box = (box[0] & ~1, box[1] & ~1, box[2], box[3])
        before = frame
        yield Part(frame.crop(box), box[0], box[1])
