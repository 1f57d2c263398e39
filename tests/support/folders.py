"""Folders of pictures, and an upscaler without a network, made for tests."""

from PIL import Image

from espan import batch
from espan.images import files
from tests.support.makers import noise


def pictures(folder, count: int) -> list[batch.Job]:
    """Jobs from folder/in into folder/big."""
    (folder / "in").mkdir()
    for i in range(count):
        files.write(folder / f"in/{i}.png", Image.fromarray(noise(4, 5, 3, seed=i)))
    return batch.plan([folder / "in"], folder / "big")


def larger(image, scale, progress):
    """An upscaler of PIL pictures without a network."""
    progress(20, 20)
    return image.resize((image.width * scale, image.height * scale))
