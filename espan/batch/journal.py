"""What a folder of results holds and was made from, so that `--resume` does only what is left."""

import hashlib
import json
import logging
import os
import threading
from importlib import resources
from pathlib import Path

from espan import __version__
from espan.batch.planning import FileJob
from espan.checkpoints.weights import BUILTIN
from espan.options import UpscalerOptions
from espan.sizes import Size
from espan.system.paths import open_regular

log = logging.getLogger("espan")

NAME = ".espan-journal"

Mark = tuple[int, int]


def mark(path: Path) -> Mark | None:
    """Size and time of change of a file, which its next version will not both have; None: gone."""
    try:
        facts = path.stat()
    except (OSError, ValueError):
        return None
    return facts.st_size, facts.st_mtime_ns


def settings_of(model: str | Path, scale: float | Size, options: UpscalerOptions) -> str:
    """A fingerprint of all that decides a result beside its input: weights, version, settings."""
    path = Path(model)
    if str(model) in BUILTIN:
        path = Path(str(resources.files("espan"))) / "builtin" / BUILTIN[str(model)]
    settings = scale, options.dtype, options.backend, options.limits.allow_truncated
    said = json.dumps([__version__, *map(str, settings)]).encode()
    return hashlib.sha256(path.read_bytes() + said).hexdigest()[:16]


class Journal:
    """One line of JSON per finished picture, appended to a hidden file in the folder of results.

    settings: see `settings_of`. part: what tells the files of machines apart that write one folder.
    A line holds the result's name and both marks; it counts as long as these are what is found. A
    line that a killed process left torn counts for nothing. Deleting the file loses nothing else.
    A link under its name is not followed: who may write the folder chose where it leads.
    """

    def __init__(self, settings: str, part: str = ""):
        self.settings, self.name = settings, NAME + part
        self._lock = threading.Lock()
        self._descriptors: dict[Path, int | None] = {}
        self._known: dict[Path, set] = {}

    def has(self, job: FileJob) -> bool:
        """Whether the result is there, made by these settings from the input as it is now."""
        if job.root is None:
            return False
        with self._lock:
            if job.root not in self._known:
                self._known[job.root] = _read_all(job.root)
            known = self._known[job.root]
        source, result = mark(job.input), mark(job.output)
        if source is None or result is None:
            return False
        return self._entry(job.root, job, source, result) in known

    def add(self, job: FileJob, source: Mark | None) -> None:
        """Notes that `job` is done; `source` is the input's mark from before it was read."""
        result = mark(job.output)
        if job.root is None or source is None or result is None:
            return
        line = json.dumps(self._entry(job.root, job, source, result)) + "\n"
        with self._lock:
            descriptor = self._open(job.root)
            if descriptor is None:
                return
            try:
                os.write(descriptor, line.encode("ascii"))
            except OSError as error:
                self._give_up(job.root, error)

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_) -> None:
        with self._lock:
            for descriptor in self._descriptors.values():
                if descriptor is not None:
                    os.close(descriptor)
            self._descriptors.clear()

    def _entry(self, root: Path, job: FileJob, source: Mark, result: Mark) -> tuple:
        name = job.output.relative_to(root).as_posix()
        return (name, self.settings, job.input.name, *source, *result)

    def _open(self, root: Path) -> int | None:
        if root not in self._descriptors:
            try:
                flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
                self._descriptors[root] = descriptor = open_regular(root / self.name, flags)
                if os.lseek(descriptor, 0, os.SEEK_END):
                    os.lseek(descriptor, -1, os.SEEK_END)
                    if os.read(descriptor, 1) != b"\n":
                        os.write(descriptor, b"\n")
            except OSError as error:
                self._give_up(root, error)
        return self._descriptors[root]

    def _give_up(self, root: Path, error: OSError) -> None:
        """Results matter more than the record of them."""
        log.warning("%s: %s; --resume will do this run again", root / self.name, error.strerror)
        if (descriptor := self._descriptors.get(root)) is not None:
            os.close(descriptor)
        self._descriptors[root] = None


def _read_all(root: Path) -> set[tuple]:
    """The entries of every journal in a folder."""
    known = set()
    for path in _journals(root):
        try:
            with os.fdopen(open_regular(path, os.O_RDONLY), "rb") as file:
                lines = file.read().splitlines()
        except OSError:
            continue
        for line in lines:
            try:
                known.add(tuple(json.loads(line)))
            except (ValueError, TypeError, RecursionError):
                continue
    return known


def _journals(root: Path) -> list[Path]:
    try:
        return [*root.glob(NAME + "*")]
    except (OSError, ValueError):
        return []
