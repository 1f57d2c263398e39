"""TIFFs of several pages, read page by page."""

from collections.abc import Generator
from contextlib import nullcontext
from functools import partial
from typing import NamedTuple

from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from espan.images.files import depth
from espan.images.files.reading import (
    Source,
    check_size,
    decoded,
    image_of,
    limited,
    naming,
    openable,
)
from espan.images.image16 import Image16
from espan.options import Limits
from espan.sizes import Size


class Page(NamedTuple):
    """What a page's header says; bytes: at most so many a pixel once it is read."""

    size: tuple[int, int]
    bytes: int


def look(source: Source, scale: float | Size, limits: Limits) -> list[Page]:
    """The pages of a TIFF, none decoded; errors like those of `read`, with the page."""
    found = []
    with naming(source), limited(limits), _opened(source) as image:
        for number in range(image.n_frames):
            with naming(f"page {number + 1}"):
                image.seek(number)
                check_size(image.size, scale, limits)
            channels = 4 if image.mode in ("P", "PA") else len(image.getbands())
            found.append(Page(image.size, channels * (1 + (depth.bits(image) > 8))))
    return found


def read_pages(source: Source, limits: Limits) -> Generator[Image.Image | Image16]:
    """The pages of a TIFF one after the other, each as `read` gives an image."""
    with naming(source), _opened(source) as image:
        with limited(limits):
            count = image.n_frames
        for number in range(count):
            with naming(f"page {number + 1}"):
                page = partial(_page, image, source, number)
                decoded_page = decoded(f"{source}: page {number + 1}", limits, page)
            yield decoded_page


def _page(image: TiffImageFile, source: Source, number: int, again: bool) -> Image.Image | Image16:
    """A page of the opened image; `again`: of the file opened again, after damage."""
    with _opened(source) if again else nullcontext(image) as opened:
        if number != opened.tell():
            opened.info = {}  # of another page
            opened.seek(number)
        return image_of(opened, source)


def _opened(source: Source) -> TiffImageFile:
    image = Image.open(openable(source), formats=("TIFF",))
    assert isinstance(image, TiffImageFile)
    return image
