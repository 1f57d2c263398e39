"""Videos in `espan upscale`: their options, their jobs and their processing."""

import argparse
import logging
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields
from pathlib import Path

from espan.cli.say import say
from espan.errors import DeviceLostError, EspanError, InputError, OutputError, escaped
from espan.sizes import Size, result_name, tag
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
    group.add_argument(
        "--codec", help="libx264, libx265, libsvtav1, ...; default: H.264, or HEVC for HDR"
    )
    group.add_argument("--crf", type=float, help="quality, lower is better; default: by codec")
    group.add_argument("--preset", help="speed preset of the encoder")
    group.add_argument("--pix-fmt", help="such as yuv420p10le; default: the input's")
    group.add_argument("--hwaccel", help="hardware decoder: cuda, qsv, ...; default: the CPU")
    group.add_argument("--start", metavar="TIME", help="begin at this time: seconds or h:mm:ss")
    group.add_argument("--end", metavar="TIME", help="stop at this time: seconds or h:mm:ss")
    group.add_argument(
        "--preview", metavar="SECONDS", help="upscale this many seconds only, from --start on"
    )
    group.add_argument(
        "--on-error",
        choices=ON_ERROR,
        help="at a damaged frame, stop or repeat a neighbouring frame; default: stop",
    )


def refuse_unused(arguments: argparse.Namespace, videos: Sequence) -> None:
    """Raises InputError if a video option is given but no input is a video."""
    for name in (field.name for field in fields(Options)):
        if not videos and getattr(arguments, name) is not None:
            raise InputError(f"{name}: applies to videos, but no input is a video")


def options_of(arguments: argparse.Namespace) -> Options:
    """The options for videos; raises OptionError for a value that no video accepts."""
    given = {field.name: getattr(arguments, field.name) for field in fields(Options)}
    return Options(**{name: value for name, value in given.items() if value is not None})


def split(inputs: Sequence[str]) -> tuple[list[Path], list[str]]:
    """(videos, selected by suffix; all other inputs)."""
    named = (p for p in map(Path, inputs) if p.suffix.lower() in READ_SUFFIXES)
    videos = [p for p in named if not is_folder(p)]
    return videos, [each for each in inputs if Path(each) not in videos]


def in_folders(folders: Sequence[str]) -> list[Path]:
    """The videos in folders; they are skipped, because each may take hours."""
    there = (folder for folder in map(Path, folders) if is_folder(folder))
    found = (each for folder in there for each in below(folder, READ_SUFFIXES))
    return sorted(each.path for each in found if not each.problem)


def plan(
    videos: list[Path],
    images: list,
    scale: float | Size,
    output: str | None,
    name: str | None = None,
    part: bool = False,
) -> list:
    """The jobs for `videos`. `images` are the image jobs of the same run.

    part: only a part of each video is upscaled, so the default name gets the suffix `_part`.

    A job whose result would replace an input or another result gets a `problem`.
    """
    from espan.batch import FileJob
    from espan.batch.planning import settle

    alone = len(videos) == 1 and not images
    sources = {resolved(each) for each in (*videos, *(job.input for job in images))}
    taken = {resolved(job.output): job.input for job in images if not job.problem}
    jobs = [FileJob(video, _target(video, alone, output, scale, name, part)) for video in videos]
    return settle(jobs, sources, taken)


def note_skipped(others: Sequence[str]) -> None:
    """Logs which videos in folders are skipped."""
    if found := in_folders(others):
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        log.info("%s%s: skipped, video in a folder; name it to upscale it", found[0], more)


def run(jobs: Sequence, upscaler, scale: float | Size, arguments: argparse.Namespace) -> Iterator:
    """Upscales one video after another and yields the outcome of each."""
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
                yield _run_job(job, upscaler, scale, options, arguments)
            except (OptionError, DeviceLostError):  # every other video would fail too
                raise
            except EspanError as error:
                yield failed(job, str(error))


def _run_job(job, upscaler, scale, options, arguments):
    """Upscales a video and returns its outcome."""
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
            if bar.total is None:  # frames of an earlier run must not count for the speed
                bar.reset(total)
                bar.n = bar.initial = done - 1
            bar.total = total
            bar.update(done - bar.n)

        try:
            return convert(video, target, upscaler, scale, options, progress)
        except KeyboardInterrupt:
            say(f"{target}: complete segments are kept; the same command continues from there")
            raise


def _is_done(video: Path, target: Path, arguments: argparse.Namespace) -> bool:
    """Whether --skip-existing or --resume skips the video; --resume checks the file times."""
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
    """The path of a video's result, with the same rules as `espan.batch.plan`."""
    from espan.images import files

    suffix = video.suffix if video.suffix.lower() in WRITE_SUFFIXES else ".mkv"
    default = f"{video.stem}_{tag(scale)}" if output is None else video.stem
    default += "_part" * part
    file_name = (default if name is None else result_name(name, video.stem, scale)) + suffix
    if output is None:
        return video.with_name(file_name)
    if names_folder(output):
        return Path(output) / file_name
    if alone and Path(output).suffix.lower() in files.WRITE_FORMATS:
        raise InputError(f"output: expected a video file such as .mp4 or .mkv, got {output}")
    if alone:
        return Path(output)
    if Path(output).suffix.lower() in (*READ_SUFFIXES, *files.READ_SUFFIXES):
        raise InputError(f"output: {output} is one file, but there are several inputs")
    return Path(output) / file_name
