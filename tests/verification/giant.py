"""Peak memory and time of a new process that upscales a huge image from file to file.

python -m tests.verification.giant --megapixels 200 --format png
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from espan import Upscaler
from espan.images import files
from espan.options import LIMITS, Limits


def peak() -> int:
    """Peak memory of this process in bytes. Not ru_maxrss, which includes the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def make_image(width: int, height: int) -> Image.Image:
    """Smooth shapes and fine grain, which compress like a photograph."""
    random = np.random.default_rng(0)
    soft = Image.fromarray(
        random.integers(256, size=(height // 40 + 2, width // 40 + 2, 3), dtype=np.uint8)
    )
    pixels = np.asarray(soft.resize((width, height), Image.Resampling.BICUBIC)).copy()
    for row in pixels:
        row += random.integers(8, size=row.shape, dtype=np.uint8)
    return Image.fromarray(pixels)


def measure(source: str, target: str, options: dict) -> dict:
    """Peak memory and seconds of a new process that upscales `source` to `target`."""
    code = f"""
import json, sys, time
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
import espan
from tests.verification.giant import peak
up = espan.Upscaler(**{options!r})
before, began = peak(), time.perf_counter()
up({source!r}, output={target!r})
print(json.dumps({{"before": before, "peak": peak(), "seconds": time.perf_counter() - began}}))
"""
    result = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(result.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megapixels", type=float, default=200, help="of the result")
    parser.add_argument("--format", choices=("png", "tif"), default="png")
    parser.add_argument("--model", default="espan-x4")
    parser.add_argument(
        "--check", action="store_true", help="compare with the image computed in memory"
    )
    arguments = parser.parse_args()
    height = round((arguments.megapixels * 1e6 / 16 / 1.5) ** 0.5)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.png", Path(folder) / f"out.{arguments.format}"
        make_image(round(1.5 * height), height).save(source, compress_level=1)
        options = {"model": arguments.model, "device": "cpu"}
        report = measure(str(source), str(target), options)
        report["bytes"] = target.stat().st_size
        if arguments.check:
            expected = Upscaler(**options)(files.read(source))
            result = files.read(target, limits=Limits(max_input=LIMITS.max_output))
            report["same"] = bool((np.asarray(result) == np.asarray(expected)).all())
    print(json.dumps(report))


if __name__ == "__main__":
    main()
