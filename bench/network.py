"""The network: against its peers, model by model, over sizes and tiles, from file to file."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from bench import peers
from bench.machine import ROOT
from bench.record import Record
from bench.timing import Timing, interleaved, one_line
from espan.backends.program import STEPS, Block, Normalise, Tail
from espan.networks.models import ESPAN, SPAN, SPANF, Network

FRAMES = ((480, 270), (510, 339), (960, 540), (1920, 1080))
MEGAPIXELS = (0.1, 0.25, 0.5, 1, 2, 4, 16, 64)
MODELS = {
    "ESPAN": lambda: ESPAN(),
    "SPAN-28": lambda: SPAN(channels=28),
    "SPAN-48": lambda: SPAN(channels=48),
    "SPAN-F": lambda: SPANF(),
}
# Who runs the models beside ESPAN, and batches.
OF_EACH = ("espan", "espan fp32", "eager bf16", "eager fp16", "spandrel")
# Seconds that one call may take before it is left out.
PATIENCE = {"cpu": 20.0, "cuda": 5.0}
# What a peer may be off, in 0..1: half precision rounds at every layer.
ALLOWED = {"fp32": 1e-3, "fp16": 0.02, "bf16": 0.1}


def build(name: str) -> Network:
    """Deploy form. Weights decide no speed, but ESPAN's are the built-in ones where they can be
    read, so that peers are compared on what a user would get."""
    torch.manual_seed(0)
    net = MODELS[name]()
    if name == "ESPAN":
        try:
            from espan import load
        except ImportError:
            return net.eval().requires_grad_(False)
        net = load("espan-x4")
    return net.eval().requires_grad_(False)


def pictures(width: int, height: int, n: int = 1) -> np.ndarray:
    """uint8 (N, H, W, 3), random, with the low frequencies that pictures have."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(n, 3, height // 8 + 2, width // 8 + 2, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    noisy = smooth + 0.05 * torch.randn(n, 3, height, width, generator=generator)
    return (noisy.clamp(0, 1) * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()


def flop(net: Network) -> float:
    """Operations per input pixel, the tail merged: 2 for each weight."""
    count = 0
    for step in STEPS[type(net)](net):
        if isinstance(step, Block):
            count += sum(weight.numel() for weight in step.weights)
        elif isinstance(step, Tail):
            count += sum(weight.numel() for weight in step.weights) + step.up_weight.numel()
        elif not isinstance(step, Normalise):
            count += step.weight.numel()
    return 2.0 * count


def run(record: Record, device: torch.device, sizes, impls, full: bool, seconds: float) -> None:
    """Adds the rows of the network to `record`."""
    espan = build("ESPAN")
    frames = sizes or (FRAMES if full else FRAMES[:1])
    for size in frames:
        _against_peers(record, "ESPAN", espan, device, size, 1, impls, seconds)
    for name in MODELS:
        for n in (1, 8) if full else (1,):
            if (name, n) != ("ESPAN", 1):
                net = build(name)
                for size in frames[: 1 if device.type == "cpu" else None]:
                    _against_peers(record, name, net, device, size, n, impls, seconds, OF_EACH)
    try:
        from espan import Upscaler
    except ImportError as error:
        record.absent["network, from picture to picture"] = one_line(error)
        return
    _over_sizes(record, Upscaler, espan, device, full, seconds)
    _with_tiles(record, Upscaler, espan, device, full, seconds)
    _first_call(record, device)
    _from_file_to_file(record, Upscaler, device, frames[0], seconds)


def _against_peers(record, name, net, device, size, n, impls, seconds, only=None) -> None:
    shown = pictures(*size, n)
    label = f"{size[0]}x{size[1]}" + (f" x{n}" if n > 1 else "")
    alone: dict[str, Callable] = {}
    whole: dict[str, Callable] = {}
    kinds: dict[str, str] = {}
    with torch.inference_mode():
        want = net(torch.from_numpy(shown).permute(0, 3, 1, 2).float() / 255).numpy()
    available = peers.CPU if device.type == "cpu" else peers.CUDA
    for impl, make in available.items():
        if impls is not None and not impl.startswith(tuple(impls)):
            continue
        if only is not None and impl not in only:
            continue
        try:
            built = make(net, shown, device)
            _check(built, want)
        except Exception as reason:
            record.absent[f"network {name}: {impl}"] = one_line(reason)
            continue
        kinds[impl], alone[impl] = built.dtype, built.alone
        if built.whole:
            whole[impl] = built.whole
    work = flop(net) * n * size[0] * size[1]
    for op, contenders in ((f"{name}, network alone", alone), (f"{name}, uint8 to uint8", whole)):
        for impl, timing in interleaved(contenders, device, seconds).items():
            record.add(op, impl, label, kinds[impl], timing, work)


def _check(built: peers.Built, want: np.ndarray) -> None:
    """Nobody is timed whose picture is another one."""
    y = built.alone()
    if built.values is None:
        if tuple(y.shape) != want.shape:
            raise peers.AbsentError(f"wrong: shape {tuple(y.shape)}, expected {want.shape}")
        return
    off = float(np.abs(built.values(y) - want).max())
    # Weights nobody trained make pictures beyond 0..1.
    largest = max(1.0, float(np.abs(want).max()))
    if not off <= ALLOWED[built.dtype] * largest:
        raise peers.AbsentError(
            f"wrong: off by {off:.3g} of {largest:.3g} from the network in fp32"
        )


def _over_sizes(record, Upscaler, net, device, full, seconds) -> None:
    """Is the time per pixel flat? Automatic tiles, from uint8 to uint8."""
    up, most = Upscaler(net, device=device), MEGAPIXELS[: None if full else 3]
    rate = 0.0
    for size in most:
        height = int((size * 1e6 / 1.5) ** 0.5)
        width = int(1.5 * height)
        label = f"{width}x{height}"
        if rate * size > PATIENCE[device.type]:
            record.absent[f"time over size: {label}"] = f"would take {rate * size:.0f} s a call"
            continue
        shown = pictures(width, height)[0]
        timing = interleaved({"espan": lambda s=shown: up(s)}, device, seconds)["espan"]
        if isinstance(timing, str):
            record.absent[f"time over size: {label}"] = timing
            continue
        rate = timing.median / size
        record.add("time over size", "espan", label, str(up.dtype).split(".")[1], timing)


def _with_tiles(record, Upscaler, net, device, full, seconds) -> None:
    size = (1920, 1080) if full else (480, 270)
    shown = pictures(*size)[0]
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
picture = numpy.random.default_rng(0).integers(0, 256, (270, 480, 3), dtype=numpy.uint8)
times = []
def three():
    for _ in range(3):
        start = time.perf_counter()
        up(picture)
        times.append(time.perf_counter() - start)
if sys.argv[2] == "here":
    three()
other = threading.Thread(target=three)
other.start()
other.join()
print(json.dumps([ready - began, *times]))
"""


def _first_call(record, device) -> None:
    """A fresh process: until the upscaler is there, its first picture, the one after it; one in
    another thread, which is the only one to compute or is not: OpenMP keeps helpers for each.
    """
    try:
        ready, first, second, _, _, _, both = _fresh(device, "here")
        *_, other = _fresh(device, "in another thread")
    except (subprocess.SubprocessError, ValueError) as error:
        record.absent["first call"] = one_line(error)
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
    """PNG in, PNG out; what of it is decoding, the network, encoding. Of a photograph: noise is
    what compression takes longest for.
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
