"""The options of every command that runs a network, and the `Upscaler` they ask for."""

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from espan.errors import InputError
from espan.options import BACKENDS, DTYPE_ALIASES, DTYPES, LIMITS, Limits, UpscalerOptions
from espan.sizes import LARGEST, Scale, from_text

if TYPE_CHECKING:
    from espan.upscaler import Upscaler


def add_engine(parser: argparse.ArgumentParser, dtype: str = "auto", several: bool = False) -> None:
    """several: -n may be given more than once, `model` is then a list or None."""
    parser.add_argument(
        "-n",
        "--model",
        action="append" if several else "store",
        help="built-in name or weights file; default: built-in" + "; repeatable" * several,
    )
    parser.add_argument(
        "-t",
        "--tile",
        type=_tile,
        default="auto",
        help='input pixels a side; "auto" or 0 chooses, "none" never cuts',
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "-g", "--gpu", type=_gpus, help="number of the GPU, or several as 0,1; -1 for the CPU"
    )
    where.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps, xpu")
    parser.add_argument(
        "--dtype",
        default=dtype,
        choices=("auto", *DTYPES, *DTYPE_ALIASES),
        help=f"precision to compute in; default: {dtype}",
    )
    parser.add_argument(
        "--backend", default="auto", choices=BACKENDS, help="who computes; see espan doctor"
    )
    parser.set_defaults(**asdict(LIMITS))  # which only some commands let the user change


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """How large results are to be; `scale_of` reads what comes of it."""
    parser.add_argument(
        "-s", "--scale", type=float, help=f"1 to {LARGEST}; default: the model's own"
    )
    sizes = parser.add_argument_group("sizes", "instead of a factor, for every picture")
    sizes.add_argument("--width", metavar="W", help="results are so many pixels wide")
    sizes.add_argument("--height", metavar="H", help="results are so many pixels high")
    sizes.add_argument("--fit", metavar="WxH", help="results just fit into such a box")
    sizes.add_argument("--max-side", metavar="N", help="no side is longer, whatever the scale")


def scale_of(arguments: argparse.Namespace) -> Scale:
    """What `add_sizes` has read; InputError for a size that cannot be."""
    return from_text(vars(arguments), arguments.scale)


def _tile(text: str) -> str | int | None:
    if text in ("auto", "0"):
        return "auto"
    if text == "none":
        return None
    try:
        side = int(text)
    except ValueError:
        side = 0
    if side < 1:
        raise argparse.ArgumentTypeError(f'expected "auto", "none" or a size, got {text!r}')
    return side


def _gpus(text: str) -> list[int]:
    try:
        numbers = [int(each) for each in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or len({*numbers}) != len(numbers) or (min(numbers) < 0 and numbers != [-1]):
        raise argparse.ArgumentTypeError(f"expected a number, 0,1 and so on, or -1, got {text!r}")
    return numbers


def upscaler_of(arguments: argparse.Namespace, model: str | Path) -> "Upscaler":
    """The upscaler of `model`, for a command that has use for one device."""
    from espan.upscaler import Upscaler

    if arguments.gpu and len(arguments.gpu) > 1:
        raise InputError(f"gpu: expected one, got {len(arguments.gpu)}")
    return Upscaler.from_options(model, options_of(arguments))


def upscalers_of(arguments: argparse.Namespace, model: str) -> "list[Upscaler]":
    """An upscaler of `model` per device."""
    from espan.upscaler import Upscaler

    options = options_of(arguments)
    each_device = [replace(options, device=each) for each in _devices(arguments)]
    return [Upscaler.from_options(model, each) for each in each_device]


def model_of(arguments: argparse.Namespace, scale: Scale) -> str:
    """The model that is named, else the built-in one for `scale`."""
    from espan.checkpoints.weights import model_for

    if arguments.model is not None:
        return arguments.model
    return model_for(4 if scale is None else scale)


def options_of(arguments: argparse.Namespace) -> UpscalerOptions:
    """How to compute, on the first device that is named."""
    limits = Limits(arguments.max_input, arguments.max_output, arguments.allow_truncated)
    return UpscalerOptions(
        device=_devices(arguments)[0],
        dtype=arguments.dtype,
        backend=arguments.backend,
        tile=arguments.tile,
        limits=limits,
    )


def _devices(arguments: argparse.Namespace) -> list[str]:
    if not arguments.gpu:
        return [arguments.device]
    return ["cpu" if number < 0 else f"cuda:{number}" for number in arguments.gpu]
