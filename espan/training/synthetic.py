"""Synthetic images with gradients, edges and texture, to try a recipe without data."""

from pathlib import Path

import numpy as np
from PIL import Image

from espan.images import files
from espan.system.paths import is_file


def make_images(folder: Path, count: int = 6, side: int = 192, seed: int = 0) -> None:
    """Writes `count` PNG files, determined by the seed; keeps existing files."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{number}.png"
        if not is_file(path):
            files.write(path, Image.fromarray(_image(np.random.default_rng((seed, number)), side)))


def _image(random: np.random.Generator, side: int) -> np.ndarray:
    y, x = np.mgrid[:side, :side] / side
    image = random.random(3) * np.ones((side, side, 1))
    for _ in range(24):
        angle, width = random.random() * np.pi, 4 ** random.uniform(1, 3)
        along = np.cos(angle) * x + np.sin(angle) * y
        wave = np.sin(width * along + random.random() * 6)
        inside = np.hypot(y - random.random(), x - random.random()) < random.uniform(0.1, 0.4)
        shape = np.sign(wave) if random.random() < 0.5 else wave
        image[inside] += 0.25 * shape[inside, None] * random.uniform(-1, 1, 3)
    low, high = image.min(), image.max()
    return np.round(255 * (image - low) / (high - low)).astype(np.uint8)
