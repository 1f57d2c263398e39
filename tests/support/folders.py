"""Folders of pictures, and an upscaler without a network, made for tests."""

import torch
from PIL import Image

from espan import batch
from espan.images import files
from espan.options import LIMITS
from tests.support.makers import noise


def pictures(folder, count: int) -> list[batch.Job]:
    """Jobs from folder/in into folder/big."""
    (folder / "in").mkdir()
    for i in range(count):
        files.write(folder / f"in/{i}.png", Image.fromarray(noise(4, 5, 3, seed=i)))
    return batch.plan([folder / "in"], folder / "big")


class FakeUpscaler:
    """All that a folder asks of an `Upscaler` on a CPU, with `call` for the network."""

    device = torch.device("cpu")
    limits = LIMITS
    redone_here = 0

    def __init__(self, call):
        self._call = call

    def __call__(self, image, scale, *, progress):
        return self._call(image, scale, progress)


def larger(image, scale, progress):
    """PIL pictures enlarged without a network."""
    progress(20, 20)
    return image.resize((image.width * scale, image.height * scale))
