"""Folders of images, and a fake upscaler without a network."""

from pathlib import Path

import torch
from PIL import Image

from espan import batch
from espan.images import files
from espan.options import LIMITS
from tests.support.makers import noise


def noisy(folder: Path, count: int, height: int = 4, width: int = 5) -> Path:
    """A new folder of 0.png, 1.png, ..."""
    folder.mkdir()
    for i in range(count):
        files.write(folder / f"{i}.png", Image.fromarray(noise(height, width, 3, seed=i)))
    return folder


def image_jobs(folder: Path, count: int) -> list[batch.FileJob]:
    """Jobs from folder/in to folder/big."""
    return batch.plan([noisy(folder / "in", count)], folder / "big")


class FakeUpscaler:
    """The parts of a CPU `Upscaler` that `espan.batch` uses, with `call` instead of a network."""

    device = torch.device("cpu")
    limits = LIMITS
    redone_here = 0

    def __init__(self, call):
        self._call = call

    def __call__(self, image, scale, *, progress):
        return self._call(image, scale, progress)


def larger(image, scale, progress):
    """Enlarges PIL images without a network."""
    progress(20, 20)
    return image.resize((image.width * scale, image.height * scale))
