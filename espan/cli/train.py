"""`espan train` and `espan prepare`: trains networks and prepares their training images."""

import argparse

from espan.cli.exits import OK
from espan.cli.say import say
from espan.errors import escaped
from espan.training import recipes


def add_to(command) -> None:
    tr = command("train", _train, "Train a network, or continue an interrupted run.")
    known = ", ".join(recipes.names())
    tr.add_argument("config", metavar="CONFIG", help=f"a YAML file, or a recipe: {known}")
    tr.add_argument(
        "overrides", nargs="*", metavar="key=value", help="replace settings of the file"
    )

    pre = command("prepare", _prepare, "Decode training images once, into memory-mapped tiles.")
    pre.add_argument("input", metavar="DIR", help="folder of images, or of HR/ with LRx4/ ...")
    pre.add_argument("-o", "--output", required=True, metavar="DIR")
    pre.add_argument("--tile", type=int, default=480, help="side in HR pixels; default: 480")


def _train(arguments: argparse.Namespace) -> int:
    from espan.training.config import read_config
    from espan.training.loop import train

    print(escaped(str(train(read_config(arguments.config, arguments.overrides)))))
    return OK


def _prepare(arguments: argparse.Namespace) -> int:
    from espan.training.image_pairs import prepare

    index = prepare(arguments.input, arguments.output, arguments.tile)
    for skipped in index["skipped"]:
        say(f"espan: {skipped['reason']}")
    print(f"{len(index['pictures'])} tiles, {len(index['skipped'])} files skipped")
    return OK
