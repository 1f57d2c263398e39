"""`python bench/batch.py`: what a folder of small pictures costs beside the network."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image

from espan import Upscaler

ROOT = Path(__file__).resolve().parents[1]


def folder(
    count: int = 1000,
    side: int = 64,
    suffix: str = "png",
    rounds: int = 3,
    more: tuple[str, ...] = (),
) -> dict:
    """Seconds of `espan upscale DIR`, and of the network alone on the same pixels.

    count pictures of side x side pixels, cut from a photograph. network: one call after another on
    arrays, all cores to each. start: a run of a single picture, in which Python, PyTorch and the
    weights are loaded. Each is the fastest of `rounds`, taken by turns.
    overhead: (run - start - network) / network. more: arguments of the command.
    """
    best = dict.fromkeys(("run", "start", "network"), float("inf"))
    with tempfile.TemporaryDirectory() as name:
        inputs, outputs = Path(name, "in"), Path(name, "out")
        pictures = _cut(count, side)
        inputs.mkdir()
        for i, pixels in enumerate(pictures):
            Image.fromarray(pixels).save(inputs / f"{i:06}.{suffix}", quality=95)
        first = inputs / f"{0:06}.{suffix}"
        upscaler = Upscaler()

        def network() -> None:
            for pixels in pictures:
                upscaler(pixels)

        works = {
            "start": lambda: _run(first, f"{outputs}/", more),
            "run": lambda: _run(inputs, outputs, more),
            "network": network,
        }
        for _ in range(rounds):
            for each, work in works.items():
                began = time.perf_counter()
                work()
                best[each] = min(best[each], time.perf_counter() - began)
        assert len([*outputs.glob(f"*.{suffix}")]) == count
    return {
        "pictures": count,
        "side": side,
        "suffix": suffix,
        **{each: round(seconds, 3) for each, seconds in best.items()},
        "overhead": round((best["run"] - best["start"] - best["network"]) / best["network"], 3),
    }


def _cut(count: int, side: int) -> list[np.ndarray]:
    with Image.open(ROOT / "docs/images/kitten.png") as image:
        photograph = np.asarray(image.convert("RGB").resize((4 * image.width, 4 * image.height)))
    values = np.random.default_rng(0)
    tops, lefts = (values.integers(0, n - side, count) for n in photograph.shape[:2])
    return [
        np.ascontiguousarray(photograph[top : top + side, left : left + side])
        for top, left in zip(tops, lefts, strict=True)
    ]


def _run(inputs: Path, outputs: Path | str, more: tuple[str, ...]) -> None:
    command = [sys.executable, "-m", "espan.cli", "upscale", str(inputs), "-o", str(outputs), "-q"]
    subprocess.run([*command, *more], check=True, cwd=ROOT)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--suffix", default="png", choices=("png", "jpg", "webp", "tif", "bmp"))
    chosen, more = parser.parse_known_args()
    print(json.dumps(folder(**vars(chosen), more=tuple(more))))
