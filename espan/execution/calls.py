"""One call of an upscaler: images of any kind in, results of the same kinds out."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import Tensor

from espan.execution.encoded import decoded, is_encoded
from espan.execution.pipeline import ImageBatch, New, enlarge, enlarge_one
from espan.execution.runner import Runner
from espan.images import adapt
from espan.images.adapt import from_any
from espan.images.pixels import finite
from espan.options import Limits, NonFinite, Progress
from espan.sizes import Size, result_size

_PIL_COPY = 4  # bytes per pixel of the result, which PIL copies

Finish = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Call:
    """The arguments of a call, the same for all its images."""

    runner: Runner
    scale: float | Size
    limits: Limits
    nonfinite: NonFinite
    progress: Progress | None

    def of(self, image: Any) -> Any:
        """The result of an image, a batch, or lists and tuples of them."""
        if not isinstance(image, list | tuple):
            batch, finish = self._prepared(image)
            return finish(enlarge_one(self.runner, batch))
        with closing(self._results(adapt.each(image))) as results:
            return adapt.as_nested(image, results)

    def _results(self, images: Iterable[Any]) -> Generator[Any]:
        """Yields the results in order; on a GPU the next ones run while the caller uses one."""
        finishing: deque[Finish] = deque()

        def batches() -> Iterator[ImageBatch]:
            for image in images:
                prepared, finish = self._prepared(image)
                finishing.append(finish)
                yield prepared

        with closing(enlarge(self.runner, batches())) as results:
            for result in results:
                yield finishing.popleft()(result)

    def _prepared(self, image: Any) -> tuple[ImageBatch, Finish]:
        """An image as a batch, and a function that converts the result to the caller's kind."""
        if is_encoded(image):
            inside, encode = decoded(image, self.scale, self.limits)
            batch, finish = self._prepared(inside)
            return batch, lambda result: encode(finish(result))
        if self.nonfinite == "replace":
            image = finite(image)
        if isinstance(image, Tensor) and image.ndim == 4:
            return self._batch(image)
        adapted = from_any(image, self.runner.empty)

        def new(height: int, width: int) -> Tensor:
            return adapted.new(height, width)[None]

        copy = _PIL_COPY if isinstance(image, Image.Image) else 0
        one = self._image_batch(adapted.pixels[None], new, copy)
        return one, lambda result: adapted.finish(result[0])

    def _batch(self, batch: Tensor) -> tuple[ImageBatch, Finish]:
        # Also checks the dtype and the channels of an empty batch.
        for each in batch if len(batch) else [batch.new_zeros(()).expand(batch.shape[1:])]:
            from_any(each)

        def new(height: int, width: int) -> Tensor:
            return adapt.new_tensor(batch, (*batch.shape[:2], height, width), self.runner.empty)

        return self._image_batch(batch.detach(), new), lambda result: result

    def _image_batch(self, pixels: Tensor, new: New, copy: int = 0) -> ImageBatch:
        width, height = result_size(self.scale, pixels.shape[:1:-1])
        return ImageBatch(pixels, new, (height, width), self.progress, copy)
