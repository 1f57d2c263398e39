"""One call of an upscaler: callers' images of every kind in, results of their kinds out."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import Tensor

from espan.execution.encoded import decoded, is_encoded
from espan.execution.planes import Images, enlarge, enlarge_one
from espan.execution.runner import Runner
from espan.images import adapt
from espan.images.adapt import from_any
from espan.images.pixels import finite
from espan.options import Limits, NonFinite, Progress
from espan.sizes import Size, result_size

_PIL_COPY = 4  # bytes per pixel of the result: PIL keeps its own

Finish = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Call:
    """What a call asks of each of its images."""

    runner: Runner
    scale: float | Size
    limits: Limits
    nonfinite: NonFinite
    progress: Progress | None

    def of(self, image: Any) -> Any:
        """The result of an image, a batch, or lists and tuples of them."""
        if not isinstance(image, list | tuple):
            images, finish = self._prepared(image)
            return finish(enlarge_one(self.runner, images))
        with closing(self._results(adapt.each(image))) as results:
            return adapt.as_nested(image, results)

    def _results(self, images: Iterable[Any]) -> Generator[Any]:
        """Their results, in their order; on a GPU the next are under way while one is used."""
        finishing: deque[Finish] = deque()

        def planes() -> Iterator[Images]:
            for image in images:
                prepared, finish = self._prepared(image)
                finishing.append(finish)
                yield prepared

        with closing(enlarge(self.runner, planes())) as results:
            for result in results:
                yield finishing.popleft()(result)

    def _prepared(self, image: Any) -> tuple[Images, Finish]:
        """An image or a batch as planes, and what makes the caller's kind of their result."""
        if is_encoded(image):
            inside, encode = decoded(image, self.scale, self.limits)
            images, finish = self._prepared(inside)
            return images, lambda result: encode(finish(result))
        if self.nonfinite == "replace":
            image = finite(image)
        if isinstance(image, Tensor) and image.ndim == 4:
            return self._batch(image)
        picture = from_any(image, self.runner.empty)

        def new(height: int, width: int) -> Tensor:
            return picture.new(height, width)[None]

        copy = _PIL_COPY if isinstance(image, Image.Image) else 0
        one = self._images(picture.planes[None], new, copy)
        return one, lambda result: picture.finish(result[0])

    def _batch(self, batch: Tensor) -> tuple[Images, Finish]:
        # Of a batch without images the kind is checked all the same.
        for each in batch if len(batch) else [batch.new_zeros(()).expand(batch.shape[1:])]:
            from_any(each)

        def new(height: int, width: int) -> Tensor:
            return adapt.new_tensor(batch, (*batch.shape[:2], height, width), self.runner.empty)

        return self._images(batch.detach(), new), lambda result: result

    def _images(self, planes: Tensor, new: Callable[[int, int], Tensor], copy: int = 0) -> Images:
        width, height = result_size(self.scale, planes.shape[:1:-1])
        return Images(planes, new, (height, width), self.progress, copy)
