"""Second-order degradation: simulates photographs as found on web pages.

Blur, resize, noise and JPEG, twice, in the order of Real-ESRGAN (Wang et al., 2021). The second
resize goes to the LR size, so that the last noise and JPEG have LR resolution. The ranges below are
ours and milder; each step is skipped with some probability, so that some images stay clean.
"""

import io

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

# One entry each for the first and the second pass.
BLUR = ((0.2, 1.5), (0.2, 0.8))  # standard deviations in pixels along the two axes
RESIZE = (0.5, 1.2)  # factor of the first pass
NOISE = ((0.0, 12.0), (0.0, 20.0))  # standard deviation in levels of 255
SHOT = ((20.0, 400.0), (20.0, 400.0))  # photons of a white pixel
JPEG = ((40, 96), (30, 96))  # quality, upper bound exclusive
CHANCE = ((0.4, 0.4, 0.3, 0.3), (0.2, 1.0, 0.4, 0.7))  # of blur, resize, noise, JPEG
MODES = ("area", "bilinear", "bicubic", "bicubic")


def degrade(hr: np.ndarray, scale: int, random: np.random.Generator) -> np.ndarray:
    """(H, W, 3) uint8 -> (H / scale, W / scale, 3) uint8; H and W multiples of `scale`."""
    target = hr.shape[0] // scale, hr.shape[1] // scale
    x = torch.from_numpy(np.ascontiguousarray(hr.transpose(2, 0, 1))).float()[None]
    for turn in range(2):
        blur, resize, noise, jpeg = random.random(4) < CHANCE[turn]
        if blur:
            x = _blur(x, random.uniform(*BLUR[turn], size=2), random.uniform(0, np.pi))
        if resize:
            factor = random.uniform(*RESIZE)
            size = target if turn else [max(round(side * factor), 4) for side in x.shape[2:]]
            x = _resize(x, size, MODES[random.integers(len(MODES))])
        if noise and random.random() < 0.5:
            spread = random.uniform(*NOISE[turn])
            channels = (3, 1)[random.integers(2)]
            x = x + spread * _normal(random, (1, channels, *x.shape[2:]))
        elif noise:
            photons = random.uniform(*SHOT[turn])
            counts = random.poisson(x.clamp(0, 255).numpy() * (photons / 255))
            x = torch.from_numpy(counts).float() * (255 / photons)
        if jpeg:
            x = _jpeg(x, int(random.integers(*JPEG[turn])))
    return _pixels(x)


def _blur(x: Tensor, deviations: np.ndarray, angle: float) -> Tensor:
    """An anisotropic Gaussian, rotated by `angle`; edges repeat."""
    radius = int(np.ceil(3 * deviations.max()))
    y, z = torch.meshgrid(*[torch.arange(-radius, radius + 1.0)] * 2, indexing="ij")
    along = np.cos(angle) * z + np.sin(angle) * y
    across = np.cos(angle) * y - np.sin(angle) * z
    kernel = torch.exp(-0.5 * ((along / deviations[0]) ** 2 + (across / deviations[1]) ** 2))
    kernel = (kernel / kernel.sum())[None, None].expand(3, 1, -1, -1)
    return F.conv2d(F.pad(x, [radius] * 4, mode="replicate"), kernel, groups=3)


def _resize(x: Tensor, size, mode: str) -> Tensor:
    smooth = mode != "area"
    return F.interpolate(x, size=tuple(size), mode=mode, antialias=smooth)


def _normal(random: np.random.Generator, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(random.standard_normal(shape, np.float32))


def _jpeg(x: Tensor, quality: int) -> Tensor:
    buffer = io.BytesIO()
    Image.fromarray(_pixels(x)).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
    pixels = np.asarray(Image.open(buffer).convert("RGB"))
    return torch.from_numpy(pixels.transpose(2, 0, 1).copy()).float()[None]


def _pixels(x: Tensor) -> np.ndarray:
    return x[0].clamp(0, 255).round().permute(1, 2, 0).numpy().astype(np.uint8)
