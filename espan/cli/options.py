"""Options shared by the commands that run a network, and the `Upscaler` made from them."""

import argparse
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from espan.errors import InputError
from espan.options import BACKENDS, DEVICES, DTYPE_ALIASES, DTYPES, LIMITS, Limits, UpscalerOptions
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
        help='side of a tile in input pixels, "auto" (same as 0), or "none" for no tiles',
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "-g", "--gpu", type=_gpus, help="GPU number, or several as 0,1; -1 for the CPU"
    )
    where.add_argument("--device", default="auto", help=f"{', '.join(DEVICES)}, ...")
    parser.add_argument(
        "--dtype",
        default=dtype,
        choices=("auto", *DTYPES, *DTYPE_ALIASES),
        help=f"precision to compute in; default: {dtype}",
    )
    parser.add_argument(
        "--backend", default="auto", choices=BACKENDS, help="implementation; see espan doctor"
    )
    parser.set_defaults(**asdict(LIMITS))  # only some commands have options for them


def add_sizes(parser: argparse.ArgumentParser) -> None:
    """Adds the options for the size of results; `scale_of` reads them."""
    parser.add_argument(
        "-s", "--scale", type=float, help=f"1 to {LARGEST}; default: the model's own"
    )
    sizes = parser.add_argument_group("sizes", "in pixels, for every image, instead of a factor")
    sizes.add_argument("--width", metavar="W", help="width of results")
    sizes.add_argument("--height", metavar="H", help="height of results")
    sizes.add_argument("--fit", metavar="WxH", help="results fit into this box")
    sizes.add_argument("--max-side", metavar="N", help="upper limit for both sides; also with -s")


def scale_of(arguments: argparse.Namespace) -> Scale:
    """The value of the options of `add_sizes`; InputError for an impossible size."""
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
    """The upscaler of `model`, for a command that uses one device."""
    from espan.upscaler import Upscaler

    if arguments.gpu and len(arguments.gpu) > 1:
        raise InputError(f"gpu: expected one GPU, got {len(arguments.gpu)}")
    return Upscaler.from_options(model, options_of(arguments))


def upscalers_of(arguments: argparse.Namespace, model: str) -> "list[Upscaler]":
    """An upscaler of `model` per device."""
    from espan.upscaler import Upscaler

    options = options_of(arguments)
    each_device = [replace(options, device=each) for each in _devices(arguments)]
    return [Upscaler.from_options(model, each) for each in each_device]


def model_of(arguments: argparse.Namespace, scale: Scale) -> str:
    """The model that the user gave, or the built-in one for `scale`."""
    from espan.checkpoints.weights import model_for

    if arguments.model is not None:
        return arguments.model
    return model_for(4 if scale is None else scale)


def options_of(arguments: argparse.Namespace) -> UpscalerOptions:
    """The options of an upscaler on the first of the given devices."""
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
