"""`espan upscale`: picture files and folders."""

import argparse
import json
import sys
from dataclasses import asdict

from espan.cli import video
from espan.cli.engine import add_engine, upscaler_of
from espan.cli.exits import FAILED, OK, WRONG_USE


def add_to(command) -> None:
    up = command("upscale", run, "Upscale picture files and folders.")
    up.add_argument("inputs", nargs="*", metavar="IN", help="files, and folders with all below")
    up.add_argument("-i", "--input", action="append", default=[], help="the same as IN")
    up.add_argument("-o", "--output", metavar="OUT", help="file or folder; default: NAME_x4.EXT")
    up.add_argument(
        "-s", "--scale", type=float, help="1 to the model's own; default: the model's own"
    )
    up.add_argument("-f", "--format", help="png, jpg, webp, tif or bmp; default: the input's")
    up.add_argument("--skip-existing", action="store_true", help="leave results that are there")
    up.add_argument("--json", action="store_true", help="one JSON document on stdout")
    add_engine(up)
    video.add_options(up)


def run(arguments: argparse.Namespace) -> int:
    inputs = [*arguments.input, *arguments.inputs]
    if not inputs:
        print("espan upscale: no input given (see espan upscale --help)", file=sys.stderr)
        return WRONG_USE
    videos, inputs = video.split(inputs)
    from tqdm import tqdm

    from espan import batch
    from espan.upscaler import check_scale

    upscaler = upscaler_of(arguments, arguments.scale)
    scale = upscaler.scale if arguments.scale is None else arguments.scale
    scale = check_scale(scale, upscaler.scale)
    jobs = batch.plan(inputs, arguments.output, scale=scale, format=arguments.format)
    outcomes = video.run(videos, inputs, arguments)
    for outcome in outcomes:
        _report(outcome, arguments)
    silent = arguments.quiet or not sys.stderr.isatty()
    with tqdm(total=len(jobs), unit="file", disable=silent, leave=False) as bar:

        def progress(job: batch.Job, done: int, total: int) -> None:
            bar.set_postfix_str(f"{job.input.name} {100 * done // total} %")

        for outcome in batch.run(
            jobs, upscaler, scale, skip_existing=arguments.skip_existing, progress=progress
        ):
            outcomes.append(outcome)
            bar.update()
            with bar.external_write_mode(sys.stderr):
                _report(outcome, arguments)
    failed = sum(each.status == "failed" for each in outcomes)
    if arguments.json:
        print(json.dumps([asdict(each) for each in outcomes], indent=2))
    if not outcomes:
        print(f"espan: no pictures in {', '.join(inputs)}", file=sys.stderr)
        return FAILED
    if failed and len(outcomes) > 1:
        print(f"espan: {failed} of {len(outcomes)} failed", file=sys.stderr)
    return FAILED if failed else OK


def _report(outcome, arguments: argparse.Namespace) -> None:
    if outcome.status == "failed":
        print(f"espan: {outcome.error}", file=sys.stderr)
    elif arguments.quiet:
        return
    elif outcome.status == "skipped":
        print(f"{outcome.output} is there, skipped", file=sys.stderr)
    else:
        size = f"{outcome.width} x {outcome.height}"
        print(f"{outcome.output} {size}, {outcome.seconds:.2f} s", file=sys.stderr)
