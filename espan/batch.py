"""Many files through one upscaler: what goes where, and what became of each.

One bad file never stops the others.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from espan import files, memory
from espan.errors import EspanError, InputError, OutputError

if TYPE_CHECKING:
    from espan.upscaler import Upscaler

# Results written at once, and the pixels that those not yet written may hold before the next
# picture begins. To compress a PNG takes longer than to compute it (docs/decisions.md).
WRITERS = 4
HELD = 100_000_000


@dataclass
class Job:
    """One picture file and where its result goes."""

    input: Path
    output: Path


@dataclass
class Outcome:
    """What became of a job: status "done", "skipped" or "failed" (then with the error)."""

    input: str
    output: str
    status: str
    error: str | None = None
    width: int | None = None
    height: int | None = None
    seconds: float | None = None


def plan(
    inputs: Sequence[str | Path],
    output: str | Path | None = None,
    *,
    scale: float = 4,
    format: str | None = None,
) -> list[Job | Outcome]:
    """The jobs of files and folders (searched recursively), or the failure of what cannot be one.

    A file goes to `output` (a file, or a folder if it is one, ends in "/", or several pictures go
    there), by default beside the input as NAME_x4.EXT. A folder keeps its structure in `output`,
    by default FOLDER_x4. The extension stays if that format can be written, else it is .png;
    `format` (such as "png") sets it. Two pictures never share one result, and no result replaces
    an input.

    InputError for arguments that cannot be right: an unknown format, several inputs into one file.
    """
    suffix = None if format is None else _suffix(format)
    found = [(Path(each), _search(Path(each), output)) for each in inputs]
    single = len(found) == 1 and found[0][1] is None
    one_file = output is not None and not _is_folder(output)
    if one_file and not single and Path(output).suffix.lower() in files.WRITE_FORMATS:
        raise InputError(f"output: {output} is one file, and there are several pictures")
    sources = {p.resolve() for path, pictures in found for p in pictures or [path]}
    jobs: list[Job | Outcome] = []
    taken: dict[Path, Path] = {}
    for path, pictures in found:
        tag = f"_x{scale:g}"
        for picture in [path] if pictures is None else pictures:
            ending = suffix or _kept_suffix(picture)
            if output is None and pictures is None:
                target = picture.with_name(_stem(picture) + tag + ending)
            elif output is None:
                folder = path.resolve().with_name(path.resolve().name + tag)
                target = folder / picture.relative_to(path).with_name(_stem(picture) + ending)
            elif single and not _is_folder(output):
                target = Path(output)
                if suffix and target.suffix.lower() != suffix:
                    raise InputError(f"format: {format} does not fit the output {output}")
            else:
                inside = Path(picture.name) if pictures is None else picture.relative_to(path)
                target = Path(output) / inside.with_name(_stem(picture) + ending)
            key = target.resolve()
            if key in sources:
                jobs.append(_failed(picture, target, f"{target} would replace an input"))
            elif key in taken:
                reason = f"{target} is already the result of {taken[key]}"
                jobs.append(_failed(picture, target, reason))
            else:
                taken[key] = picture
                jobs.append(Job(picture, target))
    return jobs


def run(
    jobs: Sequence[Job | Outcome],
    upscaler: "Upscaler",
    scale: float,
    *,
    skip_existing: bool = False,
    progress: Callable[[Job, int, int], None] | None = None,
) -> Iterator[Outcome]:
    """Upscales file after file, yielding what became of each; never raises for a single file.

    Results are written while the next pictures are computed, so an outcome comes some pictures
    later. `progress(job, done, total)` counts the input pixels of the picture under way.
    """
    with ThreadPoolExecutor(WRITERS) as background:
        writing: deque[tuple[Future, int]] = deque()
        for job in jobs:
            while writing and (
                writing[0][0].done()
                or len(writing) == WRITERS
                or sum(pixels for _, pixels in writing) > HELD
            ):
                yield writing.popleft()[0].result()
            finish, pixels = _begin(job, upscaler, scale, skip_existing, progress or _nobody)
            writing.append((background.submit(finish), pixels))
        for future, _ in writing:
            yield future.result()


def _begin(job: Job | Outcome, upscaler, scale: float, skip_existing: bool, progress):
    """(a function that does the writing and says what became of it, the pixels it holds).

    All else is done before.
    """
    if isinstance(job, Outcome):
        return lambda: job, 0
    if skip_existing and job.output.exists():
        return lambda: Outcome(str(job.input), str(job.output), "skipped"), 0
    began = time.perf_counter()
    try:
        image = files.read(job.input, scale=scale)
        size = (round(image.width * scale), round(image.height * scale))
        _make_folder(job.output.parent)
        files.check_output(job.output, image.mode, size)  # before the work, not after it
        result = upscaler(image, scale, progress=lambda *done: progress(job, *done))
        write = files.writer(job.output, result)
    except Exception as error:
        failure = _what_failed(job, error)
        return lambda: failure, 0
    computed = time.perf_counter() - began

    def finish() -> Outcome:
        began = time.perf_counter()
        try:
            write()
        except Exception as error:
            return _what_failed(job, error)
        seconds = round(computed + time.perf_counter() - began, 3)
        return Outcome(str(job.input), str(job.output), "done", None, *result.size, seconds)

    return finish, size[0] * size[1]


def _what_failed(job: Job, error: Exception) -> Outcome:
    """The outcome of a job that raised `error`; what is no fault of its picture is raised again."""
    if not isinstance(error, EspanError) and not memory.ran_out(error):
        raise error
    reason = str(error) if isinstance(error, EspanError) else "out of memory"
    return _failed(job.input, job.output, reason)


def _nobody(_job: Job, _done: int, _total: int) -> None:
    """The progress nobody asked for."""


def _search(path: Path, output: str | Path | None) -> list[Path] | None:
    """The pictures in a folder, those under `output` left out; None for a file."""
    if not _is_dir(path):
        return None
    results = None if output is None else Path(output).resolve()
    pictures = sorted(
        p
        for p in path.rglob("*")
        if p.suffix.lower() in files.READ_SUFFIXES and not p.name.startswith(".") and p.is_file()
    )
    if results is None or results == path.resolve():
        return pictures
    return [p for p in pictures if results not in p.resolve().parents]


def _suffix(format: str) -> str:
    suffix = "." + format.lower().lstrip(".")
    if suffix not in files.WRITE_FORMATS:
        known = ", ".join(each[1:] for each in files.WRITE_FORMATS)
        raise InputError(f"format: expected one of {known}, got {format!r}")
    return suffix


def _stem(picture: Path) -> str:
    """The name without its extension, if that says it is a picture: scan.v1 is all name."""
    return picture.stem if picture.suffix.lower() in files.READ_SUFFIXES else picture.name


def _kept_suffix(picture: Path) -> str:
    return picture.suffix if picture.suffix.lower() in files.WRITE_FORMATS else ".png"


def _is_folder(output: str | Path) -> bool:
    return str(output).endswith(("/", "\\")) or _is_dir(Path(output))


def _is_dir(path: Path) -> bool:
    """False too for what cannot be a name at all: reading or writing it will say why."""
    try:
        return path.is_dir()
    except OSError:
        return False


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{folder}: could not be made: {error.strerror}") from error


def _failed(picture: Path, target: Path, reason: str) -> Outcome:
    named = reason if reason.startswith(f"{picture}: ") else f"{picture}: {reason}"
    return Outcome(str(picture), str(target), "failed", named)
