"""`espan upscale`: image files, videos and folders."""

import argparse
import json
import sys
import threading
from collections.abc import Callable, Generator
from contextlib import closing, redirect_stdout
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

from espan.cli import streams, video
from espan.cli.exits import FAILED, OK, WRONG_USE
from espan.cli.hints import hint_at_web, note_unread
from espan.cli.options import (
    add_engine,
    add_sizes,
    model_of,
    options_of,
    scale_of,
    upscaler_of,
    upscalers_of,
)
from espan.cli.say import say
from espan.errors import InputError, escaped
from espan.sizes import Size, check_scale
from espan.system.paths import as_path, is_file

if TYPE_CHECKING:
    from espan.batch import Journal, Outcome

# Starts the jobs of a run and yields the outcome of each.
Start = Callable[..., "Generator[Outcome]"]


def add_to(command) -> None:
    up = command("upscale", run, "Upscale image files, videos and folders.")
    up.add_argument("inputs", nargs="*", metavar="IN", help="files, folders (recursively), or -")
    up.add_argument("-i", "--input", action="append", default=[], help="same as IN")
    up.add_argument("-o", "--output", metavar="OUT", help="file, folder or -; default: NAME_x4.EXT")
    add_sizes(up)
    up.add_argument("-f", "--format", help="png, jpg, webp, avif, tif or bmp; default: the input's")
    up.add_argument(
        "--name",
        metavar="TEMPLATE",
        help='file name of results, such as "{stem}@{scale}x"; the extension is kept',
    )
    skipped = up.add_mutually_exclusive_group()
    skipped.add_argument("--skip-existing", action="store_true", help="skip results that exist")
    skipped.add_argument("--resume", action="store_true", help="skip results that are up to date")
    up.add_argument(
        "-j", "--jobs", type=_count, metavar="N", help="images at a time; default: one per core"
    )
    up.add_argument(
        "--shard", type=_shard, metavar="I/N", help="process share I of N, counted from 1"
    )
    up.add_argument(
        "--engine", choices=("local", "ray"), default="local", help="ray: run on a Ray cluster"
    )
    up.add_argument("--json", action="store_true", help="one JSON document on stdout")
    add_engine(up)
    _add_limits(up)
    video.add_options(up)


def _add_limits(up: argparse.ArgumentParser) -> None:
    """Adds the options for `espan.Limits`, with the names of its fields."""
    up.add_argument(
        "--max-pixels",
        dest="max_input",
        type=_count,
        metavar="N",
        help="largest input, in pixels; default: %(default)d",
    )
    up.add_argument(
        "--max-output-pixels",
        dest="max_output",
        type=_count,
        metavar="N",
        help="largest result, in pixels; default: %(default)d",
    )
    up.add_argument(
        "--allow-truncated", action="store_true", help="read truncated files as far as possible"
    )


def run(arguments: argparse.Namespace) -> int:
    inputs = [*arguments.input, *arguments.inputs]
    if not inputs:
        say("espan upscale: no input given (see espan upscale --help)")
        return WRONG_USE
    for named, what in ((inputs, "input"), ([arguments.output], "output")):
        for each in named:
            if each is not None:
                as_path(each, what)
    if streams.wanted(inputs, arguments.output):
        return streams.run(arguments, inputs)
    videos, inputs = video.split(inputs)
    video.refuse_unused(arguments, videos)
    if arguments.format and not inputs:
        raise InputError("format: applies to images; the output's extension selects a container")
    from tqdm import tqdm

    from espan import batch

    tqdm.set_lock(threading.RLock())  # kill -9 would leak the default lock, which spans processes
    asked = scale_of(arguments)
    model = model_of(arguments, asked)
    if arguments.engine == "ray":
        start, own = _on_ray(arguments, model)
    else:
        upscalers = upscalers_of(arguments, model)
        start, own = partial(batch.run, upscalers=upscalers), upscalers[0].scale
    scale = check_scale(asked, own)
    plain = {
        "scale": scale,
        "format": arguments.format,
        "alone": not videos,
        "name": arguments.name,
    }
    jobs = batch.plan(inputs, arguments.output, **plain)
    cut = video.options_of(arguments).part() != (0, None)
    clips = video.plan(videos, jobs, scale, arguments.output, arguments.name, cut)
    video.note_skipped(inputs)
    note_unread(inputs)
    if arguments.resume and jobs and not clips and not any(job.root for job in jobs):
        raise InputError("resume: needs an output folder; --skip-existing works without one")
    found, part = len(jobs) + len(clips), ""
    if arguments.shard:
        jobs, clips = (batch.shard(each, *arguments.shard) for each in (jobs, clips))
        part = "-{}-of-{}".format(*arguments.shard)
    hint_at_web(jobs, model, scale)
    outcomes = []
    try:
        if clips:
            local = arguments.engine == "local"
            upscaler = upscalers[0] if local else upscaler_of(arguments, model)
            for outcome in video.run(clips, upscaler, scale, arguments):
                outcomes.append(outcome)
                _report(outcome, arguments)
        settings = batch.settings_of(model, scale, options_of(arguments))
        journal = batch.Journal(settings, part)
        with closing(_images(start, jobs, scale, journal, arguments)) as done:
            for outcome in done:
                outcomes.append(outcome)
    finally:  # also if a lost device ends the run
        if arguments.json:
            print(json.dumps([asdict(each) for each in outcomes], indent=2))
    return _sum_up(outcomes, found, arguments)


def _images(
    start: Start, jobs: list, scale: float | Size, journal: "Journal", arguments
) -> "Generator[Outcome]":
    """Upscales the images; reports and yields the outcome of each."""
    from tqdm import tqdm

    from espan import batch

    silent = arguments.quiet or not sys.stderr.isatty()
    with tqdm(total=len(jobs), unit="file", disable=silent, leave=False) as bar, journal:

        def progress(job: batch.FileJob, done: int, total: int) -> None:
            bar.set_postfix_str(f"{escaped(job.input.name)} {100 * done // total} %", refresh=False)

        def skip(job: batch.FileJob) -> bool:
            if arguments.resume:
                return journal.has(job)
            return arguments.skip_existing and is_file(job.output)

        how = {"workers": arguments.jobs, "skip": skip, "journal": journal, "progress": progress}
        # Ray prints warnings about lost workers on stdout, which is for data.
        with redirect_stdout(sys.stderr), closing(start(jobs, scale=scale, **how)) as done:
            for outcome in done:
                bar.update()
                with bar.external_write_mode(sys.stderr):
                    _report(outcome, arguments)
                yield outcome


def _on_ray(arguments: argparse.Namespace, model: str) -> tuple[Start, int]:
    """(function that runs the jobs on a cluster, scale of the network)."""
    from espan.batch import cluster
    from espan.checkpoints.weights import load

    if arguments.gpu not in (None, [-1]):
        raise InputError("gpu: expected only -1 with --engine ray, because Ray assigns the GPUs")
    start = partial(cluster.run, model=model, options=options_of(arguments))
    return start, load(model).scale


def _sum_up(outcomes: list, found: int, arguments: argparse.Namespace) -> int:
    if not found:
        named = ", ".join([*arguments.input, *arguments.inputs])
        say(f"espan: no images in {named}")
        return FAILED
    failed = [each.error for each in outcomes if each.status == "failed"]
    for limit, option in (
        ("over the limit of", "pixels"),
        ("over the output limit", "output-pixels"),
    ):
        if any(limit in error for error in failed):
            say(f"espan: --max-{option} N raises the limit")
    if failed and len(outcomes) > 1:
        say(f"espan: {len(failed)} of {len(outcomes)} failed")
    return FAILED if failed else OK


def _report(outcome, arguments: argparse.Namespace) -> None:
    if outcome.status == "failed":
        say(f"espan: {outcome.error}")
    elif arguments.quiet:
        return
    elif outcome.status == "skipped":
        say(f"{outcome.output} exists, skipped")
    else:
        size = f"{outcome.width} x {outcome.height}"
        again = f", {outcome.redone} tiles recomputed in float32" if outcome.redone else ""
        say(f"{outcome.output} {size}, {outcome.seconds:.2f} s{again}")


def _count(text: str) -> int:
    number = int(text) if text.isdecimal() else 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return number


def _shard(text: str) -> tuple[int, int]:
    index, _, count = text.partition("/")
    if not (index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise argparse.ArgumentTypeError(f"expected I/N with I from 1 to N, got {text!r}")
    return int(index), int(count)
