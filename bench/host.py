"""Times of entire calls: host to host, lists, device to device, PIL, video."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from bench.machine import ROOT
from bench.network import images
from bench.timing import Timing, captured, interleaved, one_line
from espan.images.pixels import to_network_input

OP = "host to host"
LIST = 16
# Disables AMX, to emulate a processor without it.
NO_AMX = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}

ALONE = """
import json, sys, time
import numpy, torch
from bench.network import images
from espan import Upscaler
up = Upscaler(device="cpu")
width, height, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
image = images(width, height)[0]
times, end = [], time.perf_counter() + seconds
up(image)
while time.perf_counter() < end or len(times) < 3:
    start = time.perf_counter()
    up(image)
    times.append(time.perf_counter() - start)
print(json.dumps(times))
"""


def host_to_host(record, Upscaler, net, device: torch.device, size, seconds: float) -> None:
    """Adds rows for every kind of input, and for the network alone with its pixels on the device.

    On a GPU the latter is the plan in a CUDA graph, uint8 to uint8, with its check.
    """
    from PIL import Image

    up = Upscaler(net, device=device)
    shown = images(*size)[0]
    image = Image.fromarray(shown)
    contenders = {
        "the network alone": _alone(up, shown),
        "numpy to numpy": lambda: up(shown),
        f"a list of {LIST} arrays, each": lambda: up([shown] * LIST),
        f"a loop over {LIST} arrays, each": lambda: [up(shown) for _ in range(LIST)],
        "PIL to PIL": lambda: up(image),
    }
    if device.type == "cuda":
        there = torch.from_numpy(shown).permute(2, 0, 1).contiguous().to(device)
        contenders["CUDA tensor to CUDA tensor"] = lambda: up(there)
        rows = torch.from_numpy(shown).to(device).permute(2, 0, 1)
        contenders["CUDA tensor to CUDA tensor, (H, W, C) in memory"] = lambda: up(rows)
    for name, timing in interleaved(contenders, device, seconds).items():
        each = LIST if name.endswith("each") else 1
        record.add(OP, name, _label(size), "auto", _over(timing, each))
    _video(record, up, seconds)
    if device.type == "cpu" and "amx_bf16" in record.machine["device"]:
        _without_amx(record, size, seconds)


def _alone(up, shown: np.ndarray):
    runner, device = up._runner, up.device
    pixels = torch.from_numpy(shown).permute(2, 0, 1)[None].to(device)
    if device.type == "cuda":
        return captured(runner._bind(up.dtype, pixels), device)
    x = to_network_input(pixels, device, up.dtype)
    return lambda: runner._forward(x, up.dtype)


def _over(timing: Timing | str, count: int) -> Timing | str:
    if isinstance(timing, str):
        return timing
    median, q20, q80 = (each / count for each in (timing.median, timing.q20, timing.q80))
    return replace(timing, median=median, q20=q20, q80=q80)


def _label(size) -> str:
    return f"{size[0]}x{size[1]}"


def _video(record, up, seconds: float) -> None:
    """Adds rows per frame for a video from file to file, and for its frames as a list."""
    try:
        from bench import video
        from espan.video import convert, frames, source
        from espan.video.options import Options
    except ImportError as error:
        record.absent["host to host: video"] = one_line(error)
        return
    with tempfile.TemporaryDirectory() as folder:
        clip = video.make(Path(folder) / "clip.mp4")
        facts = source.probe(clip)
        shown = [each.image for each in frames.read(facts)]
        out = Path(folder) / "out.mp4"
        contenders = {
            "video, each frame": lambda: convert.convert(clip, out, up, up.scale, Options()),
            "its frames as a list, each": lambda: up(shown),
        }
        for name, timing in interleaved(contenders, up.device, seconds).items():
            record.add(OP, name, _label(video.SIZE), "auto", _over(timing, len(shown)))


def _without_amx(record, size, seconds: float) -> None:
    name = "numpy to numpy, AMX switched off"
    command = [sys.executable, "-c", ALONE, *map(str, size), str(seconds)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=120, cwd=ROOT, env=os.environ | NO_AMX
        )
        record.add(OP, name, _label(size), "auto", Timing.of(json.loads(done.stdout)))
    except (subprocess.SubprocessError, ValueError) as error:
        record.absent[f"{OP}: {name}"] = one_line(error)
