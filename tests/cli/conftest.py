"""Fixtures: a folder of images, and `espan upscale` with a small network."""

import pytest
from PIL import Image

from espan.cli import main
from espan.images import files
from tests.support.makers import noise


@pytest.fixture
def images(tmp_path):
    """A folder with two images, one of them in a subfolder, and a text file."""
    folder = tmp_path / "in"
    (folder / "deep/er").mkdir(parents=True)
    files.write(folder / "a.png", Image.fromarray(noise(5, 6, 3)))
    files.write(folder / "deep/er/b.webp", Image.fromarray(noise(4, 4, 3)))
    (folder / "notes.txt").write_text("no image")
    return folder


@pytest.fixture
def upscale(weights):
    def run(*arguments) -> int:
        return main(
            ["upscale", "--device=cpu", "-n", weights, "--dtype", "fp32", *map(str, arguments)]
        )

    return run
