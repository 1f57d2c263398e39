"""`espan eval`: scores of a network on benchmark sets."""

import argparse
import json
import logging
from dataclasses import asdict
from math import isfinite

from espan.cli.exits import FAILED, OK
from espan.cli.options import add_engine, model_of, upscaler_of
from espan.cli.say import say
from espan.errors import InputError, escaped
from espan.networks import SCALES

log = logging.getLogger("espan")


def add_to(command) -> None:
    ev = command("eval", run, "Measure PSNR and SSIM over benchmark sets (see README).")
    ev.add_argument(
        "--data",
        required=True,
        metavar="DIR",
        help="HR/ and LRx4/, HR images, or folders of these",
    )
    ev.add_argument("-s", "--scale", type=int, default=4, choices=SCALES)
    ev.add_argument("--bicubic", action="store_true", help="measure MATLAB's bicubic instead")
    ev.add_argument("--json", action="store_true", help="one JSON document on stdout")
    add_engine(ev, dtype="fp32")


def run(arguments: argparse.Namespace) -> int:
    from espan.evaluation.benchmark import COLUMNS, Scores, bicubic, evaluate, sets_without_lr

    if arguments.bicubic and arguments.model:
        raise InputError("model: cannot be given with --bicubic")
    if arguments.bicubic:
        upscaler = bicubic(arguments.scale)
    else:
        upscaler = upscaler_of(arguments, model_of(arguments, arguments.scale))
        if upscaler.scale != arguments.scale:
            raise InputError(
                f"scale: expected the model's, {upscaler.scale}, got {arguments.scale}"
            )
    for folder in sets_without_lr(arguments.data, arguments.scale):
        log.info("%s: no LRx%d; computing it with MATLAB's bicubic", folder, arguments.scale)
    rows: list[Scores] = []
    for row in evaluate(upscaler, arguments.data, arguments.scale):
        if not arguments.json and not rows:
            print(f"{'set':12} {'image':16}" + "".join(f"{column:>10}" for column in COLUMNS))
        rows.append(row)
        if row.error:
            say(f"espan: {row.error}")
        elif not arguments.json:
            numbers = "".join(
                f"{value:10.3f}" if column.startswith("psnr") else f"{value:10.4f}"
                for column, value in row.values.items()
            )
            named = f"{escaped(row.dataset)[:12]:12} {escaped(row.name)[:16]:16}"
            print(named + numbers, flush=True)
    if arguments.json:
        # JSON has no infinity, which is the PSNR of equal images.
        plain = [asdict(row) for row in rows]
        for each in plain:
            each["values"] = {k: v if isfinite(v) else None for k, v in each["values"].items()}
        print(json.dumps(plain, indent=2))
    return FAILED if any(row.error for row in rows) else OK
