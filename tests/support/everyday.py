"""Everyday images: small photographs after JPEG or noise, hard edges, flat colours."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image
from skimage import data

from espan import psnr
from espan.evaluation.benchmark import bicubic
from espan.images.resize import downscale, modcrop

Images = Callable[[np.ndarray], np.ndarray]


def photographs() -> dict[str, np.ndarray]:
    """Six RGB photographs of scikit-image, in no network's training data."""
    left, _, _ = data.stereo_motorcycle()
    grey = data.camera()
    return {
        "astronaut": data.astronaut(),
        "camera": np.stack([grey] * 3, -1),
        "chelsea": data.chelsea(),
        "coffee": data.coffee(),
        "motorcycle": left,
        "rocket": data.rocket(),
    }


def jpeg(quality: int) -> Images:
    def degrade(image: np.ndarray) -> np.ndarray:
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, "JPEG", quality=quality, subsampling="4:2:0")
        return np.asarray(Image.open(buffer))

    return degrade


def noisy(sigma: float) -> Images:
    def degrade(image: np.ndarray) -> np.ndarray:
        noise = np.random.default_rng(0).standard_normal(image.shape)
        return np.round(image + sigma * noise).clip(0, 255).astype(np.uint8)

    return degrade


KINDS: dict[str, Images] = {
    "clean": lambda image: image,
    "JPEG q95": jpeg(95),
    "JPEG q75": jpeg(75),
    "JPEG q50": jpeg(50),
    "JPEG q30": jpeg(30),
    "noise 15": noisy(15),
}


def gains(upscaler: Images, scale: int, kinds=KINDS) -> dict[str, float]:
    """Mean gain in Y PSNR over MATLAB's bicubic on the photographs."""
    plain, rows = bicubic(scale), []
    for photograph in photographs().values():
        hr = modcrop(photograph, scale)
        lr = downscale(hr, scale)
        rows.append([])
        for kind in kinds:
            degraded = KINDS[kind](lr)
            ours, theirs = (
                psnr(each(degraded), hr, space="y", border=scale, range=255)
                for each in (upscaler, plain)
            )
            rows[-1].append(ours - theirs)
    return dict(zip(kinds, np.mean(rows, axis=0).tolist(), strict=True))


def ghost(upscaler: Images, scale: int) -> int:
    """The largest error, of 255, at least two LR pixels away from a black-to-white step."""
    worst = 0
    for dark, light in ((0, 255), (255, 0)):
        step = np.full((48, 48, 3), dark, np.uint8)
        step[:, 24:] = light
        for turned in (step, step.swapaxes(0, 1)):
            result = upscaler(np.ascontiguousarray(turned)).astype(int)
            result = result if turned is step else result.swapaxes(0, 1)
            error = abs(result - step.repeat(scale, 0).repeat(scale, 1))
            worst = max(worst, error[:, : 22 * scale].max(), error[:, 26 * scale :].max())
    return int(worst)


def border(upscaler: Images) -> int:
    """The largest error, of 255, in uniform images of 27 colours, including borders."""
    levels = (0, 128, 255)
    colours = [(r, g, b) for r in levels for g in levels for b in levels]
    errors = (
        abs(upscaler(np.full((48, 48, 3), colour, np.uint8)).astype(int) - colour).max()
        for colour in colours
    )
    return int(max(errors))
