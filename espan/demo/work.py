"""Upscales images uploaded by the web page with the networks that the page offers."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from espan import animation
from espan.checkpoints.weights import model_for
from espan.demo.jobs import WebJob
from espan.demo.limits import Limits
from espan.errors import InputError
from espan.images import files
from espan.networks import SCALES
from espan.options import LIMITS
from espan.options import Limits as FileLimits
from espan.sizes import Size, nearest, result_size
from espan.upscaler import Upscaler

BUILTIN = "built-in"
# First bytes of animation files; all others are AVIF.
MAGIC = {b"GIF8": ".gif", b"\x89PNG": ".png", b"RIFF": ".webp"}
# Combinations of network and factor whose measured speed is kept.
MOST_PACES = 64


class Work:
    """The function that `WebJobs` calls for each job. Clients select a model by key, not by path.

    `upscaler(model)` constructs the upscaler of a built-in network or of one of `paths`.
    """

    def __init__(
        self, upscaler: Callable[[str], Upscaler], paths: Sequence[str | Path], limits: Limits
    ):
        self.limits = limits
        self._paces: dict[tuple[str, float | Size], float] = {}  # input pixels per second
        self._builtin = {scale: upscaler(model_for(scale)) for scale in SCALES}
        self._given = {str(i): (Path(p).stem, upscaler(str(p))) for i, p in enumerate(paths, 1)}

    def models(self) -> dict[str, dict]:
        """{key: name to show and scale}; the first is the default."""
        given = {key: {"name": name, "scale": up.scale} for key, (name, up) in self._given.items()}
        return given | {BUILTIN: {"name": "built in", "scale": max(self._builtin)}}

    def device(self) -> str:
        """Device and dtype as text."""
        upscaler = self._builtin[4]
        return f"{upscaler.device}, {str(upscaler.dtype).removeprefix('torch.')}"

    def scale(self, model: str) -> int:
        """The scale of the network; InputError for a model that is not offered."""
        if model not in self.models():
            raise InputError(f"model: expected one of {', '.join(self.models())}")
        return self.models()[model]["scale"]

    def upscaler(self, model: str, scale: float | Size) -> Upscaler:
        """The upscaler for an offered model and a scale."""
        if model != BUILTIN:
            return self._given[model][1]
        return self._builtin[nearest(scale, [*self._builtin])]

    def __call__(self, job: WebJob, progress: Callable[[int, int], None]) -> None:
        request, most = job.request, self.limits.pixels
        upscaler = self.upscaler(request.model, request.scale)
        sizes = FileLimits(min(most, LIMITS.max_input), most)
        try:
            image = files.read(job.source, scale=request.scale, limits=sizes)
        except files.AnimatedError:
            self._animation(job, upscaler, sizes, progress)
            return
        except files.PagesError as error:
            raise InputError("a TIFF of several pages; use `espan upscale` for it") from error
        size = result_size(request.scale, image.size)
        files.check_output(job.result, image.mode, size)  # fail before the work, not after it
        files.write(job.preview, image)
        key, pixels = (request.model, request.scale), image.width * image.height
        job.pace = self._paces.get(key, 0.0) / pixels
        began = time.monotonic()
        result = upscaler(image, request.scale, progress=progress)
        if len(self._paces) >= MOST_PACES:
            self._paces.clear()
        self._paces[key] = pixels / max(time.monotonic() - began, 1e-3)
        files.write(job.result, result)
        job.size = result.size

    def _animation(
        self,
        job: WebJob,
        upscaler: Upscaler,
        limits: FileLimits,
        progress: Callable[[int, int], None],
    ) -> None:
        job.request.suffix = job.request.animation_suffix
        scaled = job.source, job.result, upscaler, job.request.scale
        made = animation.convert(*scaled, progress, limits=limits)
        job.size = made.width, made.height
        with job.source.open("rb") as file:
            job.shown = MAGIC.get(file.read(4), ".avif")
        job.source.replace(job.preview)
