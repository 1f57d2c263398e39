"""`espan export`: a network as a file for other programs."""

import argparse
import re

from espan.cli.exits import OK
from espan.cli.say import say
from espan.exporting import SUFFIXES


def add_to(command) -> None:
    ex = command("export", run, "Write a network as a file that other programs run.")
    ex.add_argument("model", metavar="MODEL", help="built-in name or weights file")
    ex.add_argument(
        "-o", "--output", required=True, metavar="FILE", help="its ending says the format"
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


def _size(text: str) -> tuple[int, int]:
    if not (match := re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)):
        raise argparse.ArgumentTypeError(f"expected height x width as in 270x480, got {text!r}")
    return int(match[1]), int(match[2])
