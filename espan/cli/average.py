"""`espan average`: averages the weights of several networks."""

import argparse
import sys

from espan.cli.exits import OK


def add_to(command) -> None:
    av = command("average", run, "Average the weights of fine-tunes of one network.")
    av.add_argument("models", nargs="+", metavar="MODEL", help="weights files or built-in names")
    av.add_argument("-o", "--output", required=True, metavar="FILE.safetensors")
    av.add_argument("--fp16", action="store_true", help="write float16, half the size")


def run(arguments: argparse.Namespace) -> int:
    import torch

    from espan.checkpoints.averaging import average
    from espan.checkpoints.weights import save

    net = average(arguments.models)
    dtype = torch.float16 if arguments.fp16 else torch.float32
    save(net, arguments.output, dtype=dtype)
    if not arguments.quiet:
        count = len(arguments.models)
        kind = f"{type(net).__name__} x{net.scale}"
        print(f"{arguments.output} {kind}, the mean of {count} networks", file=sys.stderr)
    return OK
