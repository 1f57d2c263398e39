"""What is done with a picture of the web page: the networks it may go through, and how."""

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
# How the files of animations begin; the fourth kind is AVIF.
MAGIC = {b"GIF8": ".gif", b"\x89PNG": ".png", b"RIFF": ".webp"}
# Paces are kept for so many networks and factors.
MOST_PACES = 64


class Work:
    """`work(job, progress)` for `WebJobs`. Clients name a model by its key, never by a path.

    `upscaler(model)` makes the upscaler of a built-in name or of one of `paths`.
    """

    def __init__(
        self, upscaler: Callable[[str], Upscaler], paths: Sequence[str | Path], limits: Limits
    ):
        self.limits = limits
        self._paces: dict[tuple[str, float | Size], float] = {}  # pixels of an input in a second
        self._builtin = {scale: upscaler(model_for(scale)) for scale in SCALES}
        self._given = {str(i): (Path(p).stem, upscaler(str(p))) for i, p in enumerate(paths, 1)}

    def models(self) -> dict[str, dict]:
        """Key -> name to show and its own scale; the first is the one to begin with."""
        given = {key: {"name": name, "scale": up.scale} for key, (name, up) in self._given.items()}
        return given | {BUILTIN: {"name": "built in", "scale": max(self._builtin)}}

    def device(self) -> str:
        """What computes, in words."""
        upscaler = self._builtin[4]
        return f"{upscaler.device}, {str(upscaler.dtype).removeprefix('torch.')}"

    def scale(self, model: str) -> int:
        """The network's own; InputError for a model that is not offered."""
        if model not in self.models():
            raise InputError("model: not one of those offered")
        return self.models()[model]["scale"]

    def upscaler(self, model: str, scale: float | Size) -> Upscaler:
        """What computes that; the model is one of those offered."""
        if model != BUILTIN:
            return self._given[model][1]
        return self._builtin[nearest(scale, [*self._builtin])]

    def __call__(self, job: WebJob, progress: Callable[[int, int], None]) -> None:
        asked, most = job.asked, self.limits.pixels
        upscaler = self.upscaler(asked.model, asked.scale)
        sizes = FileLimits(min(most, LIMITS.max_input), most)
        try:
            image = files.read(job.source, scale=asked.scale, limits=sizes)
        except files.AnimatedError:
            self._animation(job, upscaler, sizes, progress)
            return
        size = result_size(asked.scale, image.size)
        files.check_output(job.result, image.mode, size)  # before the work, not after it
        files.write(job.preview, image)
        key, pixels = (asked.model, asked.scale), image.width * image.height
        job.pace = self._paces.get(key, 0.0) / pixels
        began = time.monotonic()
        result = upscaler(image, asked.scale, progress=progress)
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
        job.asked.suffix = job.asked.moving
        scaled = job.source, job.result, upscaler, job.asked.scale
        made = animation.convert(*scaled, progress, limits=limits)
        job.size = made.width, made.height
        with job.source.open("rb") as file:
            job.shown = MAGIC.get(file.read(4), ".avif")
        job.source.replace(job.preview)
