"""Plans the jobs of files and folders: where results go, and the share of each machine."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from espan import animation, sizes
from espan.errors import InputError, OutputError, escaped
from espan.images import files
from espan.sizes import Size
from espan.system import paths
from espan.system.paths import as_path, names_folder, resolved


@dataclass
class FileJob:
    """An image file and the path of its result.

    root: the folder of results that contains `output`, if there is one. problem: the reason if it
    is known in advance that the job must fail.
    """

    input: Path
    output: Path
    root: Path | None = None
    problem: str | None = None


@dataclass
class Outcome:
    """The outcome of a job: status "done", "skipped" or "failed", and the error if it failed.

    redone: tiles that overflowed in half precision and were computed again in float32.
    """

    input: str
    output: str
    status: str
    error: str | None = None
    width: int | None = None
    height: int | None = None
    seconds: float | None = None
    redone: int = 0


def skipped(job: FileJob) -> Outcome:
    return Outcome(str(job.input), str(job.output), "skipped")


def failed(job: FileJob, reason: str) -> Outcome:
    """The outcome of a failed job; its message contains the name of the image once."""
    name = escaped(f"{job.input}: ")
    named = reason if reason.startswith(name) else name + reason
    return Outcome(str(job.input), str(job.output), "failed", escaped(named))


def plan(
    inputs: Sequence[str | Path],
    output: str | Path | None = None,
    *,
    scale: float | Size = 4,
    format: str | None = None,
    alone: bool = True,
    name: str | None = None,
) -> list[FileJob]:
    """The jobs of files and folders (searched recursively).

    The result of a file goes to `output`: a file, or a folder if it is one, ends in "/", or several
    images go there. The default is NAME_x4.EXT beside the input, NAME_w1920.EXT for a width. A
    folder keeps its structure in `output`, by default FOLDER_x4. The extension is kept if that
    format can be written, or else .png; `format` (such as "png") sets it. An image given twice is
    one job. If two images had the same result, or a result replaced an input, the job gets a
    `problem`; so does an unreadable folder. alone: only these inputs go to `output`. name: a
    template for the names of results, with {stem} and {scale}; without it they are NAME, or NAME_x4
    beside the input.

    Raises InputError for invalid arguments: an unknown format, several inputs into one file.
    """
    suffix = None if format is None else files.suffix_named(format)
    named = [as_path(each, "input") for each in inputs]
    if output is not None:
        as_path(output, "output")
    found = [(each, _search(each, output)) for each in named]
    single = alone and len(found) == 1 and found[0][1] is None
    one_file = None if output is None or names_folder(output) else Path(output)
    if one_file and not single and one_file.suffix.lower() in files.WRITE_FORMATS:
        raise InputError(f"output: {output} is one file, but there are several images")
    if one_file and single:
        try:
            only = one_file.suffix.lower() in {*animation.SUFFIXES} - {*files.WRITE_FORMATS}
            moves = only and animation.is_animated(found[0][0])
            asked = animation.format_of(one_file) if moves else files.format_of(one_file)
        except OutputError as error:
            raise InputError(str(error)) from error
        if suffix and files.WRITE_FORMATS[suffix] != asked:
            raise InputError(f"format: {format} does not fit the output {output}")

    tag = f"_{sizes.tag(scale)}"

    def stem_of(path: Path, usual: str = "") -> str:
        stem = _stem(path)
        return stem + usual if name is None else sizes.result_name(name, stem, scale)

    sources = {resolved(job.input) for path, jobs in found for job in jobs or [FileJob(path, path)]}
    planned: list[FileJob] = []
    for path, searched in found:
        if searched is None:
            ending = suffix or _kept_suffix(path)
            if output is None:
                job = FileJob(path, path.with_name(stem_of(path, tag) + ending))
            elif single and one_file:
                job = FileJob(path, one_file)
            else:
                job = FileJob(path, Path(output) / (stem_of(path) + ending), Path(output))
            planned.append(job)
        else:
            here = resolved(path)
            if output is None and not here.name:
                raise InputError(f"output: required for {here}, which has no parent folder")
            root = here.with_name(here.name + tag) if output is None else Path(output)
            planned += [_into(root, path, job, suffix, stem_of) for job in searched]
    return settle(planned, sources, {})


def shard(jobs: Sequence[FileJob], index: int, count: int) -> list[FileJob]:
    """The jobs of part `index` (from 1) of `count`, by a hash of the name in the folder of results.

    Depends on the name only, so machines that list a growing folder at different times neither
    repeat nor miss an image.
    """

    def part(job: FileJob) -> int:
        name = job.output.relative_to(job.root).as_posix() if job.root else job.output.name
        return int.from_bytes(hashlib.sha256(os.fsencode(name)).digest()[:8], "big") % count + 1

    return [job for job in jobs if part(job) == index]


def _into(
    root: Path, folder: Path, found: FileJob, suffix: str | None, stem_of: Callable[[Path], str]
) -> FileJob:
    inside = found.input.relative_to(folder)
    if not found.problem:
        inside = inside.with_name(stem_of(found.input) + (suffix or _kept_suffix(found.input)))
    return FileJob(found.input, root / inside, root, found.problem)


def settle(jobs: Sequence[FileJob], sources: set[Path], taken: dict[Path, Path]) -> list[FileJob]:
    """Removes repeated jobs, and sets the `problem` of jobs whose result another job has.

    The job that keeps the result is the one with the same extension, or else the first. sources:
    inputs that no result may replace. taken: {result of another job: its input}. Resolved paths.
    """
    repeated = set()
    for job in sorted(jobs, key=lambda job: job.output.suffix != job.input.suffix):
        key = resolved(job.output)
        if job.problem:
            continue
        if key in sources:
            job.problem = f"{job.output} would replace an input"
        elif key not in taken:
            taken[key] = job.input
        elif resolved(taken[key]) == resolved(job.input):
            repeated.add(id(job))
        else:
            job.problem = f"{job.output} is already the result of {taken[key]}"
    return [job for job in jobs if id(job) not in repeated]


def _search(folder: Path, output: str | Path | None) -> list[FileJob] | None:
    """Jobs for the images below a folder, including unreadable ones; None if it is a file.

    Skips the folder `output`.
    """
    if not paths.is_folder(folder):
        return None
    results = None if output is None else resolved(Path(output))
    if results == resolved(folder):
        results = None
    found = paths.below(folder, files.READ_SUFFIXES, lambda each: resolved(each) != results)
    return [FileJob(path, path, problem=problem) for path, problem in found]


def _kept_suffix(path: Path) -> str:
    """The suffix of the input, except for GIF and APNG files that are not animated: .png."""
    suffix = path.suffix.lower()
    if suffix in animation.SUFFIXES and suffix not in files.WRITE_FORMATS:
        return path.suffix if animation.is_animated(path) else ".png"
    return files.kept_suffix(path)


def _stem(path: Path) -> str:
    """The name without its extension if that is one of an image: "scan.v1" is unchanged."""
    return path.stem if path.suffix.lower() in files.READ_SUFFIXES else path.name
