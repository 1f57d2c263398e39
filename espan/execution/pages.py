"""A TIFF of several pages, upscaled page by page into another one."""

from contextlib import closing
from typing import Any

from espan.errors import EspanError, OutputError
from espan.execution import streaming
from espan.execution.frames import Report
from espan.images import files
from espan.options import Limits, Progress
from espan.sizes import Size, result_size


def upscale_pages(
    source: files.Source,
    target: files.Target,
    upscaler: streaming.Enlarges,
    scale: float | Size,
    progress: Progress | None = None,
    *,
    limits: Limits | None = None,
) -> Report:
    """Writes all pages of `source`; one is in memory at a time, and of a large one its strips.

    limits: in place of the upscaler's.

    Raises OutputError for a target that is no TIFF, and what reading and writing raise, with the
    number of the page.
    """
    limits = limits or upscaler.limits
    pages = files.look_at_pages(source, scale, limits)
    if files.format_of(target) != "TIFF":
        raise OutputError(
            f"{source}: {len(pages)} pages, which {target} cannot hold; name a .tif file as output"
        )
    sizes = [result_size(scale, page.size) for page in pages]
    for size in sizes:
        files.check_output(target, "RGB", size)
    need = sum(w * h * page.bytes for page, (w, h) in zip(pages, sizes, strict=True))
    inputs = [page.size[0] * page.size[1] for page in pages]
    with (
        files.opened(target) as file,
        closing(files.read_pages(source, limits)) as images,
    ):
        into = files.Pages(file, ".tif")
        into.big = need > files.CLASSIC
        before, total = 0, sum(inputs)
        for number, (image, pixels) in enumerate(zip(images, inputs, strict=True)):
            told = _Share(progress, before, pixels, total)
            try:
                streaming.upscale_to(into, upscaler, image, scale, told)
            except EspanError as error:
                raise type(error)(f"{source}: page {number + 1}: {error}") from error
            before += pixels
    return Report(len(pages), *sizes[0])


class _Share:
    """The progress of one page as that of all: in pixels of the input."""

    def __init__(self, progress: Progress | None, before: int, pixels: int, total: int):
        self.progress, self.before, self.pixels, self.total = progress, before, pixels, total

    def __call__(self, done: int, total: int) -> Any:
        if self.progress is not None:
            self.progress(self.before + self.pixels * done // total, self.total)
