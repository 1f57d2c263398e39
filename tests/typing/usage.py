"""The public names as callers use them, with the types that mypy must infer. Never executed."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFile
from torch import Tensor
from typing_extensions import assert_type

import espan
import espan_kernels
from espan import Image16

FromFile = Image.Image | Image16


def one_image(
    pil: Image.Image,
    opened: ImageFile.ImageFile,
    deep: Image16,
    small: NDArray[np.uint8],
    floats: NDArray[np.float32],
    unknown: NDArray[Any],
    tensor: Tensor,
) -> None:
    assert_type(espan.upscale(pil), Image.Image)
    assert_type(espan.upscale(opened, 2.5), Image.Image)
    assert_type(espan.upscale(deep), Image16)
    assert_type(espan.upscale(small, 4), NDArray[np.uint8])
    assert_type(espan.upscale(floats, np.float64(2)), NDArray[np.float32])
    assert_type(espan.upscale(unknown), NDArray[Any])
    assert_type(espan.upscale(tensor, device="cuda:1", dtype=torch.float16), Tensor)
    up = espan.Upscaler("espan-x4", device=torch.device("cpu"), dtype="fp32", tile=(64, 96))
    assert_type(up(pil), Image.Image)
    assert_type(up(opened), Image.Image)
    assert_type(up(deep, 2), Image16)
    assert_type(up(small, progress=lambda done, total: None), NDArray[np.uint8])
    assert_type(up(floats), NDArray[np.float32])
    assert_type(up(tensor, None, progress=None), Tensor)


def files(path: Path) -> None:
    assert_type(espan.upscale("photo.jpg"), FromFile)
    assert_type(espan.upscale(path, output=None), FromFile)
    assert_type(espan.upscale(path, output="big.png"), Path)
    assert_type(espan.upscale(espan.upscale(path)), FromFile)
    up = espan.Upscaler(path)
    assert_type(up("photo.jpg"), FromFile)
    assert_type(up(path, 2, output=path), Path)


def several(
    pils: list[Image.Image],
    opened: list[ImageFile.ImageFile],
    pil: Image.Image,
    array: NDArray[np.uint8],
    tensors: tuple[Tensor, ...],
) -> None:
    assert_type(espan.upscale(pils), list[Image.Image])
    assert_type(espan.upscale(opened), list[Image.Image])
    assert_type(espan.upscale([array, array]), list[NDArray[Any]])
    assert_type(espan.upscale(["a.png", "b.png"]), list[FromFile])
    assert_type(espan.upscale(tensors), tuple[Tensor, ...])
    up = espan.Upscaler()
    assert_type(up(pils), list[Image.Image])
    assert_type(up((pil, pil)), tuple[Image.Image, ...])
    assert_type(up(tensors), tuple[Tensor, ...])
    assert_type(up(("a.png", Path("b.png"))), tuple[FromFile, ...])
    mixed: list[Image.Image | NDArray[Any] | str] = [pil, array, "a.png"]
    for big in up(mixed):
        assert_type(big, Image.Image | Image16 | NDArray[Any] | Tensor)


def upscalers(net: espan.ESPAN, options: espan.UpscalerOptions) -> None:
    up = espan.Upscaler(net, backend="triton", nonfinite="replace", limits=espan.Limits(10**6))
    assert_type(up, espan.Upscaler)
    assert_type(espan.Upscaler.from_options("espan-x2", options), espan.Upscaler)
    assert_type(up.scale, int)
    assert_type(up.device, torch.device)
    assert_type(up.dtype, torch.dtype)
    assert_type(up.explain(), str)
    assert_type(up.redone, int)
    assert_type(up.options, espan.UpscalerOptions)


def networks() -> None:
    net = espan.load("espan-x4")
    assert_type(net, espan.Network)
    assert_type(espan.fold(net), espan.Network)
    espan.save(net, "copy.safetensors", dtype=torch.float16, licence="CC0")
    assert_type(espan.export(net, "net.onnx", size=(270, 480)).error, float)
    assert_type(espan.SPAN(scale=2).radius, int)
    assert_type(espan.SPANF().folded, bool)


def videos_and_pages(array: NDArray[np.uint8]) -> None:
    assert_type(espan.upscale_video("clip.mp4", "big.mp4", 2, crf=18, on_error="repeat"), Path)
    assert_type(espan.video_frames("clip.mp4"), Iterator[tuple[float, NDArray[Any]]])
    assert_type(espan.compare("a.png", output=["page.html", "sheet.png"]).scale, int)
    assert_type(espan.psnr(array, array, space="rgb", border=4, range=255), float)
    assert_type(espan.ssim(array, array, space="y", border=4, range=255), float)


def errors() -> None:
    try:
        espan.register_spandrel()
    except espan.DeviceLostError as lost:
        kinds: list[espan.DeviceError] = [lost]
        assert_type(kinds[0].args, tuple[Any, ...])
    except (espan.LimitError, espan.NonFiniteError) as unusable:
        inputs: list[espan.InputError] = [unusable]
        raise espan.OutputError(str(inputs)) from None


def ops(x: Tensor) -> None:
    assert_type(espan_kernels.span_gate(x, x, impl="eager"), Tensor)
    assert_type(espan_kernels.conv3x3(x, x, x, act="silu"), Tensor)
    assert_type(espan_kernels.conv9x9_head(x, x, x), Tensor)
    assert_type(espan_kernels.spab(x, [x, x], (x, x)), Tensor)
    assert_type(espan_kernels.tail([x], [x], x, x, x, scale=4, uint8=True), Tensor)
    assert_type(espan_kernels.dct2(x, block=8, inverse=True), Tensor)
    assert_type(espan_kernels.dct_l1(x, x), Tensor)
    assert_type(espan_kernels.pack_weight(x), Tensor)
    assert_type(espan_kernels.explain("cpu"), str)


def streams(data: bytes, file: BinaryIO, memory: io.BytesIO) -> None:
    assert_type(espan.upscale(data), bytes)
    assert_type(espan.upscale(file, 2, format="png"), bytes)
    assert_type(espan.upscale(data, output="big.png"), Path)
    assert_type(espan.upscale("photo.jpg", output=memory, format="png"), io.BytesIO)
    up = espan.Upscaler()
    assert_type(up(data, espan.Size(width=1920)), bytes)
    assert_type(up(memory, output=file), BinaryIO)
