"""Creates images, image files and networks for tests."""

import json
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import nn

from espan import ESPAN
from espan.networks.network import Network
from espan.networks.reparam import RepConv
from espan.system import memory


@torch.no_grad()
def random_net(make=ESPAN, seed: int = 0, scale: int = 4, **config) -> Network:
    """A small network that is sensitive to borders: biases as large as signals.

    Its output has mean 0.5 and standard deviation 0.15, so that little is clamped.
    """
    if make is ESPAN:
        config = {"blocks": 1, "last_convs": 0} | config
    generator = torch.Generator().manual_seed(seed)
    net = make(**({"channels": 8} | config), scale=scale).eval()
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight.normal_(0, layer.weight[0].numel() ** -0.5, generator=generator)
            layer.bias.normal_(0, 1, generator=generator)
    convs = [m for m in net.modules() if isinstance(m, nn.Conv2d if net.folded else RepConv)]
    # In training form the sum of branches.
    ends = [convs[-1]] if net.folded else [branch[-1] for branch in convs[-1].branches]
    y = net(torch.rand(1, 3, 24, 24, generator=generator))
    ends[0].bias -= y.mean()
    factor = 0.15 / y.std()
    for end in ends:
        end.weight *= factor
        end.bias *= factor
    ends[0].bias += 0.5
    return net


@torch.no_grad()
def nearest_net() -> Network:
    """x4 by repeating pixels, with a known result."""
    net = random_net()
    for part in net.parameters():
        part.zero_()
    for c in range(3):
        net.conv_1.weight[c, c, 4, 4] = net.conv_cat.weight[c, c] = 1
        net.upsampler.weight[16 * c : 16 * c + 16, c, 1, 1] = 1
    return net


def free_memory(monkeypatch, free: int | None) -> None:
    """Patches the free memory that the system reports, and clears the cache."""
    monkeypatch.setattr(memory, "available", lambda: free)
    monkeypatch.setattr(memory, "_until", 0.0)


def noise(*shape: int, dtype=np.uint8, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).random(shape)
    white = {np.uint8: 255, np.uint16: 65535}.get(dtype)
    return values.astype(dtype) if white is None else np.round(values * white).astype(dtype)


def disc(size: int = 32) -> np.ndarray:
    """RGBA: an opaque light disc on transparent black."""
    y, x = np.mgrid[:size, :size] - (size - 1) / 2
    inside = np.hypot(y, x) < size / 3
    return np.where(inside[..., None], [200, 180, 220, 255], 0).astype(np.uint8)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, bits: int, colour: int, rows: bytes | None, *extra: bytes):
    """A PNG as bytes; `rows` are the unfiltered scanlines, or None for no image data."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    body = b"" if rows is None else chunk(b"IDAT", zlib.compress(rows))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(extra) + body + chunk(b"IEND", b"")


def scanlines(pixels: np.ndarray) -> bytes:
    """PNG scanlines of (H, W, C) or (H, W): big-endian, a filter byte of 0 before each row."""
    big = pixels.astype(pixels.dtype.newbyteorder(">"))
    return b"".join(b"\0" + row.tobytes() for row in big)


GREY, RGB, PALETTE, GREY_ALPHA, RGB_ALPHA = 0, 2, 3, 4, 6

# Settings of a training run of one second, on the CPU even if there is a GPU.
TINY_RUN = {
    "device": "cpu",
    "channels": 8,
    "blocks": 1,
    "last_convs": 0,
    "steps": 6,
    "batch": 2,
    "patch": 8,
    "every": 2,
    "precision": "fp32",
}


def as_yaml(path: Path, **settings) -> str:
    path.write_text("".join(f"{key}: {json.dumps(value)}\n" for key, value in settings.items()))
    return str(path)


def python(code: str) -> subprocess.CompletedProcess:
    """Runs `code` in a new Python process."""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
