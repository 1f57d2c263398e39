"""The overhead of an animation over its frames: `python bench/animation.py`.

For each format: a file of frames that pan over a photograph is upscaled, interleaved with the
network alone on the same frames; and the results are written again without the network. Prints the
best of three rounds in wall-clock and CPU seconds, and the size and PSNR of what was written.
"""

import io
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image

import espan
from bench.machine import ROOT
from bench.video import timed
from espan.animation import writing

SIZE, FRAMES, ROUNDS, MILLISECONDS = (320, 240), 200, 3, 40
FORMATS = {"gif": "GIF", "png": "PNG", "webp": "WEBP"}


def clip() -> list[Image.Image]:
    width, height = SIZE
    with Image.open(ROOT / "docs/images/kitten.png") as photograph:
        large = photograph.convert("RGB").resize((width + 20, height + 20))
    corners = ((2 * i % 20, i % 20) for i in range(FRAMES))
    return [large.crop((x, y, x + width, y + height)) for x, y in corners]


def measure(suffix: str, folder: Path, device: str = "auto") -> dict[str, float]:
    frames, source, target = clip(), folder / f"in.{suffix}", folder / f"out.{suffix}"
    frames[0].save(source, save_all=True, append_images=frames[1:], duration=MILLISECONDS)
    upscaler = espan.Upscaler("espan-x4", device=device)
    large = [upscaler(frame) for frame in frames]
    coded = io.BytesIO()

    def code() -> None:
        coded.seek(0)
        coded.truncate()
        times = [MILLISECONDS] * FRAMES
        writing.write(coded, FORMATS[suffix], iter(large), times, 0, None)

    works = {
        "network": lambda: [upscaler(frame) for frame in frames],
        "animation": lambda: espan.upscale_animation(
            source, target, model="espan-x4", device=device
        ),
        "coding": code,
    }
    rounds = [{name: timed(work) for name, work in works.items()} for _ in range(ROUNDS)]
    found: dict[str, float] = {}
    for name in works:
        wall, processors = min(each[name] for each in rounds)
        found |= {f"{name}, ms a frame": 1e3 * wall / FRAMES}
        found |= {f"{name}, CPU ms a frame": 1e3 * processors / FRAMES}
    found["times the network's"] = found["animation, ms a frame"] / found["network, ms a frame"]
    return found | {"KB a frame": len(coded.getvalue()) / FRAMES / 1e3, "PSNR": _psnr(coded, large)}


def _psnr(coded: io.BytesIO, large: list[Image.Image]) -> float:
    """Mean of the first frames, in dB; infinite if they are equal."""
    values = []
    with Image.open(coded) as written:
        for i, frame in enumerate(large[:20]):
            written.seek(i)
            shown = np.asarray(written.convert("RGB"))
            values.append(espan.psnr(shown, np.asarray(frame), space="rgb", border=0, range=255))
    return float(np.mean(values))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        for suffix in FORMATS:
            results = measure(suffix, Path(folder)).items()
            print(f"{suffix}: " + ", ".join(f"{name} {value:.3g}" for name, value in results))
