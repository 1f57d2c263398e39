"""`espan export`: writes a network as a file for other programs."""

import argparse
import re

from espan.cli.exits import OK
from espan.cli.say import say
from espan.errors import InputError
from espan.exporting import SUFFIXES


def add_to(command) -> None:
    ex = command("export", run, "Write a network as a file that other programs run.")
    ex.add_argument("model", nargs="?", metavar="MODEL", help="built-in name or weights file")
    ex.add_argument("-o", "--output", metavar="FILE", help="its extension selects the format")
    ex.add_argument(
        "--comfyui", metavar="DIR", help="write a folder for ComfyUI's custom_nodes with MODEL"
    )
    ex.add_argument(
        "-f",
        "--format",
        choices=SUFFIXES,
        help=f"default: by the extension of FILE, one of {' '.join(SUFFIXES.values())}",
    )
    ex.add_argument("--fp16", action="store_true", help="weights and arithmetic in float16")
    sizes = ex.add_mutually_exclusive_group()
    sizes.add_argument("--dynamic", action="store_true", help="accept images of any size (default)")
    sizes.add_argument("--size", type=_size, metavar="HxW", help="accept images of this size only")


def run(arguments: argparse.Namespace) -> int:
    if arguments.comfyui is not None:
        return _comfyui(arguments)
    for name in ("model", "output"):
        if getattr(arguments, name) is None:
            raise InputError(f"{name}: required (see espan export --help)")
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
        difference = f"differs from the network by at most {made.error:.1e} (values 0 to 1)"
        say(f"{made.path} {made.format}, {size}, {difference}")
    return OK


def _comfyui(arguments: argparse.Namespace) -> int:
    for name in ("output", "format", "size"):
        if getattr(arguments, name) is not None:
            raise InputError(f"{name}: cannot be given with --comfyui")
    from espan.exporting.comfyui import write_nodes

    folder = write_nodes(arguments.comfyui, arguments.model)
    if not arguments.quiet:
        say(f"{folder}: move it to ComfyUI's custom_nodes, and install espan in ComfyUI's Python")
    return OK


def _size(text: str) -> tuple[int, int]:
    if not (match := re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)):
        raise argparse.ArgumentTypeError(f"expected height x width as in 270x480, got {text!r}")
    return int(match[1]), int(match[2])
