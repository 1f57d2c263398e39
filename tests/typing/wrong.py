"""Calls that mypy must reject, each with the expected error. Never executed."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

import espan
import espan_kernels


def keywords(pil: Image.Image) -> None:
    espan.Upscaler(devise="cpu")  # error: [call-arg] "devise"
    espan.upscale(pil, devise="cpu")  # error: [call-overload] "devise"
    espan.Upscaler()(pil, progres=None)  # error: [call-overload] "progres"
    espan.upscale_video("a.mp4", "b.mp4", codek="ffv1")  # error: [call-arg] "codek"
    espan.compare("a.png", output="a.html", nonfinit="error")  # error: [call-arg] "nonfinit"
    espan.Limits(max_imput=1)  # error: [call-arg] "max_imput"


def values(pil: Image.Image) -> None:
    espan.Upscaler(backend="cud")  # error: [arg-type] "backend"
    espan.Upscaler(dtype="half")  # error: [arg-type] "dtype"
    espan.Upscaler(nonfinite="ignore")  # error: [arg-type] "nonfinite"
    espan.Upscaler(tile="all")  # error: [arg-type] "tile"
    espan.Upscaler(tile=(1, 2, 3))  # error: [arg-type] "tile"
    espan.Upscaler(nn.Identity())  # error: [arg-type] "Identity"
    espan.upscale(pil, "4")  # error: [call-overload] "str"
    espan.UpscalerOptions(backend="cud")  # error: [arg-type] "backend"


def images(pil: Image.Image, integers: NDArray[np.int64], array: NDArray[np.uint8]) -> None:
    espan.upscale(3)  # error: [call-overload] "int"
    espan.upscale(integers)  # error: [type-var] "PixelType"
    espan.upscale([3])  # error: [type-var] "Each"
    espan.upscale(array, output="big.png")  # error: [call-overload] ndarray
    espan.Upscaler()(pil, output="big.png")  # error: [call-overload] "Image"


def results(pil: Image.Image, array: NDArray[np.uint8]) -> None:
    espan.upscale(array).save("big.png")  # error: [attr-defined] "save"
    print(espan.upscale("photo.jpg", output="big.png").size)  # error: [attr-defined] "size"
    print(espan.upscale(pil).shape)  # error: [attr-defined] "shape"


def names(x: Tensor) -> None:
    espan.upscal(x)  # error: [attr-defined] "upscal"
    espan.Upscaler().exlpain()  # error: [attr-defined] "exlpain"
    espan.UpscalerOptions().tile = 3  # error: [misc] "tile"
    espan.psnr(x, x, space="y", border=0)  # error: [call-arg] "range"
    espan_kernels.conv3x3(x, x)  # error: [call-arg] "bias"
    espan_kernels.span_gate(x, x, "eager")  # error: [call-arg] Too many
