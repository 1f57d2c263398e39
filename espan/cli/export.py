"""`espan export`: a network as a file for other programs."""

import argparse
import re

from espan.cli.exits import OK
from espan.cli.say import say
from espan.errors import InputError
from espan.exporting import SUFFIXES


def add_to(command) -> None:
    ex = command("export", run, "Write a network as a file that other programs run.")
    ex.add_argument("model", nargs="?", metavar="MODEL", help="built-in name or weights file")
    ex.add_argument("-o", "--output", metavar="FILE", help="its ending says the format")
    ex.add_argument(
        "--comfyui", metavar="DIR", help="a folder for ComfyUI's custom_nodes instead, MODEL in it"
    )
    ex.add_argument(
        "-f",
        "--format",
        choices=SUFFIXES,
        help=f"default: by the ending of FILE, one of {' '.join(SUFFIXES.values())}",
    )
    ex.add_argument("--fp16", action="store_true", help="weights and arithmetic in float16")
    sizes = ex.add_mutually_exclusive_group()
    sizes.add_argument(
        "--dynamic", action="store_true", help="for pictures of any size, which is the default"
    )
    sizes.add_argument("--size", type=_size, metavar="HxW", help="for pictures of this size alone")


def run(arguments: argparse.Namespace) -> int:
    if arguments.comfyui is not None:
        return _comfyui(arguments)
    for name in ("model", "output"):
        if getattr(arguments, name) is None:
            raise InputError(f"{name}: needed (see espan export --help)")
    from espan.exporting.export import export

    made = export(
        arguments.model,
        arguments.output,
        arguments.format,
        fp16=arguments.fp16,
        size=arguments.size,
    )
    if not arguments.quiet:
        size = f"{made.path.stat().st_size / 1e6:.1f} MB"
        same = f"off by at most {made.error:.1e} of 1 from the network"
        say(f"{made.path} {made.format}, {size}, {same}")
    return OK


def _comfyui(arguments: argparse.Namespace) -> int:
    for name in ("output", "format", "size"):
        if getattr(arguments, name) is not None:
            raise InputError(f"{name}: --comfyui names the folder, and all of it is settled")
    from espan.exporting.comfyui import write_nodes

    folder = write_nodes(arguments.comfyui, arguments.model)
    if not arguments.quiet:
        say(f"{folder}: put it into ComfyUI's custom_nodes; its Python needs espan")
    return OK


def _size(text: str) -> tuple[int, int]:
    if not (match := re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)):
        raise argparse.ArgumentTypeError(f"expected height x width as in 270x480, got {text!r}")
    return int(match[1]), int(match[2])
