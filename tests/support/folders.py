"""Folders of images and an upscaler without a network, for tests."""

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


def pictures(folder: Path, count: int) -> list[batch.Job]:
    """Jobs from folder/in into folder/big."""
    return batch.plan([noisy(folder / "in", count)], folder / "big")


class FakeUpscaler:
    """The parts of an `Upscaler` on a CPU used for folders, with `call` as the network."""

    device = torch.device("cpu")
    limits = LIMITS
    redone_here = 0

    def __init__(self, call):
        self._call = call

    def __call__(self, image, scale, *, progress):
        return self._call(image, scale, progress)


def larger(image, scale, progress):
    """Upscales PIL images without a network."""
    progress(20, 20)
    return image.resize((image.width * scale, image.height * scale))
