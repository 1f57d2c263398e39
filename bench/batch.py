"""`python bench/batch.py`: the overhead of a folder of small images over the network alone."""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from PIL import Image

from espan import Upscaler

ROOT = Path(__file__).resolve().parents[1]


def folder(
    count: int = 1000,
    side: int = 64,
    suffix: str = "png",
    rounds: int = 3,
    device: str = "auto",
    more: tuple[str, ...] = (),
) -> dict:
    """Seconds of `espan upscale DIR`, and of the network alone on the same pixels.

    Uses `count` images of side x side pixels, cropped from a photograph. network: sequential calls
    on arrays, each using all cores. start: a run with a single image, which loads Python, PyTorch
    and the weights. Each is the fastest of `rounds` interleaved rounds.
    overhead: (run - start - network) / network. processor: the same in CPU seconds summed over all
    cores, with the network on one core; other load on the machine affects these little.
    more: further arguments of the command.
    """
    clock: dict[str, float] = {}
    processor: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        inputs, outputs = Path(name, "in"), Path(name, "out")
        crops = _crop(count, side)
        inputs.mkdir()
        for i, pixels in enumerate(crops):
            Image.fromarray(pixels).save(inputs / f"{i:06}.{suffix}", quality=95)
        first = inputs / f"{0:06}.{suffix}"
        more = ("--device", device, *more)
        upscaler, cores = Upscaler(device=device), torch.get_num_threads()

        def network(threads: int) -> None:
            torch.set_num_threads(threads)
            for pixels in crops:
                upscaler(pixels)
            torch.set_num_threads(cores)

        for _ in range(rounds):
            _time("start", lambda: _run(first, f"{outputs}/", more), clock, processor)
            _time("run", lambda: _run(inputs, outputs, more), clock, processor)
            _time("network", lambda: network(cores), clock, {})
            _time("network", lambda: network(1), {}, processor)
        assert len([*outputs.glob(f"*.{suffix}")]) == count
    return {
        "pictures": count,
        "side": side,
        "suffix": suffix,
        **clock,
        "overhead": _overhead(**clock),
        "processor": processor | {"overhead": _overhead(**processor)},
    }


def _time(name: str, work: Callable[[], None], clock: dict, processor: dict) -> None:
    """Times `work` and keeps the minimum wall-clock and CPU seconds under `name`."""
    seconds = -time.perf_counter(), -_processor_seconds()
    work()
    seconds = seconds[0] + time.perf_counter(), seconds[1] + _processor_seconds()
    for least, one in zip((clock, processor), seconds, strict=True):
        least[name] = round(min(least.get(name, one), one), 6)


def _processor_seconds() -> float:
    """CPU seconds of this process and its ended children; `os.times` counts in steps of 10 ms."""
    parts = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(part.ru_utime + part.ru_stime for part in parts)


def _overhead(run: float, start: float, network: float) -> float:
    return round((run - start - network) / network, 3)


def _crop(count: int, side: int) -> list[np.ndarray]:
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
    parser.add_argument("--device", default="auto")
    parser.add_argument("--suffix", default="png", choices=("png", "jpg", "webp", "tif", "bmp"))
    chosen, more = parser.parse_known_args()
    print(json.dumps(folder(**vars(chosen), more=tuple(more))))
