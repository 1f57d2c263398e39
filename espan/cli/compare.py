"""`espan compare`: results of several networks for an image, side by side on a page."""

import argparse
from functools import partial

from espan.cli.exits import OK
from espan.cli.options import add_engine, upscaler_of
from espan.cli.say import say
from espan.errors import InputError


def add_to(command) -> None:
    comp = command("compare", run, "Compare bicubic and networks side by side, on one HTML page.")
    comp.add_argument("lr", metavar="LR", help="the image to upscale")
    comp.add_argument("hr", metavar="HR", nargs="?", help="its original, to score the results")
    comp.add_argument(
        "-o", "--output", required=True, metavar="OUT", help="page.html, or sheet.png to print"
    )
    comp.add_argument("--sheet", metavar="PNG", help="also write a contact sheet")
    add_engine(comp, dtype="fp32", several=True)


def run(arguments: argparse.Namespace) -> int:
    from espan import comparison
    from espan.evaluation.benchmark import COLUMNS

    outputs = [each for each in (arguments.output, arguments.sheet) if each is not None]
    given = (each for each in (arguments.lr, arguments.hr) if each is not None)
    inputs = [*given, *(arguments.model or [])]
    if arguments.sheet is not None and not arguments.sheet.lower().endswith(comparison.SHEET):
        raise InputError(f"{arguments.sheet}: expected a name that ends in {comparison.SHEET}")
    comparison.check_outputs(outputs, inputs)

    upscaler = partial(upscaler_of, arguments)
    result = comparison.make(arguments.lr, arguments.hr, arguments.model or [], upscaler)
    for path in outputs:
        comparison.write(path, result)
    if arguments.hr:
        print(f"{'':24}" + "".join(f"{column:>10}" for column in COLUMNS))
        for pane in result.panes:
            if pane.scores:
                values = "".join(
                    f"{value:10.3f}" if column.startswith("psnr") else f"{value:10.4f}"
                    for column, value in pane.scores.items()
                )
                print(f"{pane.name[:24]:24}{values}")
    if not arguments.quiet:
        say(", ".join(outputs))
    return OK
