"""The videos among the inputs of `espan upscale`: its options for them, and their work."""

import argparse
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from espan.cli.say import say
from espan.errors import DeviceLostError, EspanError, InputError, OutputError, escaped
from espan.sizes import Size, named, tag
from espan.system.paths import below, is_file, is_folder, names_folder, reason, resolved
from espan.video.options import (
    ON_ERROR,
    READ_SUFFIXES,
    WRITE_SUFFIXES,
    OptionError,
    Options,
    need_pyav,
)

log = logging.getLogger("espan")


def add_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("videos")
    group.add_argument("--codec", help="libx264, libx265, libsvtav1, ffv1, ...; default: H.264")
    group.add_argument("--crf", type=float, help="quality, less is better; default: the codec's")
    group.add_argument("--preset", help="speed of the encoder, as it names them")
    group.add_argument("--pix-fmt", help="such as yuv420p10le; default: the input's")
    group.add_argument("--hwaccel", help="hardware that decodes: cuda, qsv, ...; default: the CPU")
    group.add_argument("--start", metavar="TIME", help="begin there: seconds or h:mm:ss")
    group.add_argument("--end", metavar="TIME", help="stop there: seconds or h:mm:ss")
    group.add_argument(
        "--preview", metavar="SECONDS", help="only so many seconds, from the start or --start"
    )
    group.add_argument(
        "--on-error",
        choices=ON_ERROR,
        help="a damaged frame stops the video, or its neighbour is repeated; default: stop",
    )


def refuse_unheeded(arguments: argparse.Namespace, videos: Sequence) -> None:
    """InputError for an option for videos where there is none."""
    for name in (field.name for field in fields(Options)):
        if not videos and getattr(arguments, name) is not None:
            raise InputError(f"{name}: is for videos, and no video is named")


def options_of(arguments: argparse.Namespace) -> Options:
    """The options for videos; OptionError for a value that is wrong for any video."""
    given = {field.name: getattr(arguments, field.name) for field in fields(Options)}
    return Options(**{name: value for name, value in given.items() if value is not None})


def split(inputs: Sequence[str]) -> tuple[list[Path], list[str]]:
    """The videos named, by their suffix, and all other inputs."""
    named = (p for p in map(Path, inputs) if p.suffix.lower() in READ_SUFFIXES)
    videos = [p for p in named if not is_folder(p)]
    return videos, [each for each in inputs if Path(each) not in videos]


def left_out(folders: Sequence[str]) -> list[Path]:
    """The videos in folders: hours of work that nobody may have meant, so only named ones count."""
    there = (folder for folder in map(Path, folders) if is_folder(folder))
    found = (each for folder in there for each in below(folder, READ_SUFFIXES))
    return sorted(each.path for each in found if not each.problem)


def plan(
    videos: list[Path],
    pictures: list,
    scale: float | Size,
    output: str | None,
    name: str | None = None,
    part: bool = False,
) -> list:
    """The jobs of videos; `pictures` are those that the same run has for pictures.

    part: of each video only a part is upscaled, so that its usual name is for the whole.

    No result replaces an input or another result: such a job has a `problem`.
    """
    from espan.batch import FileJob
    from espan.batch.planning import settle

    alone = len(videos) == 1 and not pictures
    sources = {resolved(each) for each in (*videos, *(job.input for job in pictures))}
    taken = {resolved(job.output): job.input for job in pictures if not job.problem}
    jobs = [FileJob(video, _target(video, alone, output, scale, name, part)) for video in videos]
    return settle(jobs, sources, taken)


def note_left_out(others: Sequence[str]) -> None:
    """Says which videos lie in the folders among the inputs."""
    if left := left_out(others):
        more = f" and {len(left) - 1} more" if len(left) > 1 else ""
        log.info("%s%s: a video in a folder is left out; name it to upscale it", left[0], more)


def run(jobs: Sequence, upscaler, scale: float | Size, arguments: argparse.Namespace) -> Iterator:
    """Upscales video after video, yielding what became of each."""
    from espan.batch.planning import failed, skipped

    need_pyav()
    options = options_of(arguments)
    for job in jobs:
        if job.problem:
            yield failed(job, job.problem)
        elif _is_done(job.input, job.output, arguments):
            yield skipped(job)
        else:
            try:
                yield _done(job, upscaler, scale, options, arguments)
            except (OptionError, DeviceLostError):  # which would end every other video too
                raise
            except EspanError as error:
                yield failed(job, str(error))


def _done(job, upscaler, scale, options, arguments):
    """The outcome of a video that could be done."""
    from espan.batch import Outcome

    began = time.perf_counter()
    report = _convert(job.input, job.output, upscaler, scale, options, arguments)
    seconds = round(time.perf_counter() - began, 3)
    size = report.width, report.height
    return Outcome(str(job.input), str(job.output), "done", None, *size, seconds)


def _convert(video: Path, target: Path, upscaler, scale, options, arguments):
    from tqdm import tqdm

    from espan.video.convert import convert

    silent = arguments.quiet or not sys.stderr.isatty()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise OutputError(f"{target.parent}: could not be created: {reason(error)}") from error
    with tqdm(desc=escaped(video.name), unit="frame", disable=silent, leave=False) as bar:

        def progress(done: int, total: int) -> None:
            if bar.total is None:  # what an earlier run did is no work of this one
                bar.reset(total)
                bar.n = bar.initial = done - 1
            bar.total = total
            bar.update(done - bar.n)

        try:
            return convert(video, target, upscaler, scale, options, progress)
        except KeyboardInterrupt:
            say(f"{target}: what is whole of it is kept; the same command goes on from there")
            raise


def _is_done(video: Path, target: Path, arguments: argparse.Namespace) -> bool:
    """With --resume: there, and not older than its input."""
    if not is_file(target):
        return False
    newer = is_file(video) and target.stat().st_mtime >= video.stat().st_mtime
    return arguments.skip_existing or (arguments.resume and newer)


def _target(
    video: Path,
    alone: bool,
    output: str | None,
    scale: float | Size,
    name: str | None,
    part: bool,
) -> Path:
    """Where a video's result goes, as `espan.batch.plan` has it for pictures."""
    from espan.images import files

    suffix = video.suffix if video.suffix.lower() in WRITE_SUFFIXES else ".mkv"
    usual = f"{video.stem}_{tag(scale)}" if output is None else video.stem
    usual += "_part" * part
    whole = (usual if name is None else named(name, video.stem, scale)) + suffix
    if output is None:
        return video.with_name(whole)
    if names_folder(output):
        return Path(output) / whole
    if alone and Path(output).suffix.lower() in files.WRITE_FORMATS:
        raise InputError(f"output: {output} is a picture, and {video} a video; try .mp4 or .mkv")
    if alone:
        return Path(output)
    if Path(output).suffix.lower() in (*READ_SUFFIXES, *files.READ_SUFFIXES):
        raise InputError(f"output: {output} is one file, and there are several inputs")
    return Path(output) / whole
