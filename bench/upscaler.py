"""Benchmarks of `Upscaler`: image sizes, tiles, a fresh process, files."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from bench import host
from bench.machine import ROOT
from bench.network import frames, images
from bench.timing import Timing, interleaved, one_line

MEGAPIXELS = (0.1, 0.25, 0.5, 1, 2, 4, 16, 64)
# Sizes whose call would take more seconds are skipped.
PATIENCE = {"cpu": 20.0, "cuda": 5.0}


def parts(device: torch.device, net, sizes, full: bool, seconds: float) -> dict:
    """{name: a function that adds its rows to a record}; raises ImportError without Pillow."""
    from espan import Upscaler

    size = frames(device, sizes, full)[0]
    return {
        host.OP: lambda r: host.host_to_host(r, Upscaler, net, device, size, seconds),
        "time over size": lambda r: _over_sizes(r, Upscaler, net, device, full, seconds),
        "tiles": lambda r: _with_tiles(r, Upscaler, net, device, full, seconds),
        "a fresh process": lambda r: _first_call(r, device),
        "PNG file": lambda r: _from_file_to_file(r, Upscaler, device, size, seconds),
    }


def _over_sizes(record, Upscaler, net, device, full, seconds) -> None:
    """Time per pixel over image size, with automatic tiles, uint8 to uint8."""
    up, most = Upscaler(net, device=device), MEGAPIXELS[: None if full else 3]
    rate = 0.0
    for size in most:
        height = int((size * 1e6 / 1.5) ** 0.5)
        width = int(1.5 * height)
        label = f"{width}x{height}"
        if rate * size > PATIENCE[device.type]:
            record.absent[f"time over size: {label}"] = f"would take {rate * size:.0f} s a call"
            continue
        shown = images(width, height)[0]
        timing = interleaved({"espan": lambda s=shown: up(s)}, device, seconds)["espan"]
        if isinstance(timing, str):
            record.absent[f"time over size: {label}"] = timing
            continue
        rate = timing.median / size
        record.add("time over size", "espan", label, str(up.dtype).split(".")[1], timing)


def _with_tiles(record, Upscaler, net, device, full, seconds) -> None:
    size = (1920, 1080) if full else (480, 270)
    shown = images(*size)[0]
    tiles = {"no tiles": None, "automatic tiles": "auto", "tiles of 128": 128}
    contenders = {}
    for name, tile in tiles.items():
        up = Upscaler(net, device=device, tile=tile)
        contenders[name] = lambda up=up: up(shown)
    for name, timing in interleaved(contenders, device, seconds).items():
        record.add("tiles", name, f"{size[0]}x{size[1]}", "auto", timing)


FIRST = """
import json, sys, threading, time
began = time.perf_counter()
import torch, numpy
import espan
up = espan.Upscaler(device=sys.argv[1])
ready = time.perf_counter()
image = numpy.random.default_rng(0).integers(0, 256, (270, 480, 3), dtype=numpy.uint8)
times = []
def three():
    for _ in range(3):
        start = time.perf_counter()
        up(image)
        times.append(time.perf_counter() - start)
if sys.argv[2] == "here":
    three()
other = threading.Thread(target=three)
other.start()
other.join()
print(json.dumps([ready - began, *times]))
"""


def _first_call(record, device) -> None:
    """Times in a fresh process: import and load, the first and second image; and images in another
    thread, alone or in addition to the main thread, because OpenMP has a pool for each thread.
    """
    try:
        ready, first, second, _, _, _, both = _fresh(device, "here")
        *_, other = _fresh(device, "in another thread")
    except (subprocess.SubprocessError, ValueError) as error:
        record.absent["a fresh process"] = one_line(error)
        return
    steps = {"import and load": ready, "first picture": first, "second picture": second}
    steps |= {"in another thread alone": other, "in another thread too": both}
    for name, seconds in steps.items():
        once = Timing(seconds, seconds, seconds, 1)
        record.add("a fresh process", name, "480x270", "auto", once)


def _fresh(device, where: str) -> list[float]:
    command = [sys.executable, "-c", FIRST, str(device), where]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    return json.loads(done.stdout)


def _from_file_to_file(record, Upscaler, device, size, seconds) -> None:
    """PNG to PNG, and the times of decoding, the network and encoding. Uses a photograph, because
    noise is the worst case for compression.
    """
    from PIL import Image

    from espan.images import files

    up = Upscaler("espan-x4", device=device)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "in.png", Path(folder) / "out.png"
        with Image.open(ROOT / "docs/images/kitten.png") as photograph:
            photograph.convert("RGB").resize(size).save(source)
        image = files.read(source)
        large = up(image)
        contenders = {
            "file to file": lambda: up(source, output=target),
            "decode": lambda: files.read(source).load(),
            "picture to picture": lambda: up(image),
            "encode": lambda: files.write(target, large),
            "encode by Pillow": lambda: large.save(target, compress_level=1),
        }
        for name, timing in interleaved(contenders, device, seconds).items():
            record.add("PNG file", name, f"{size[0]}x{size[1]}", "auto", timing)
