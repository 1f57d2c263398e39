"""The journal of a folder of results: lets `--resume` skip finished files."""

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

Stamp = tuple[int, int]


def stamp_of(path: Path) -> Stamp | None:
    """Size and modification time of a file, to detect changes; None if it does not exist."""
    try:
        facts = path.stat()
    except (OSError, ValueError):
        return None
    return facts.st_size, facts.st_mtime_ns


def settings_of(model: str | Path, scale: float | Size, options: UpscalerOptions) -> str:
    """A digest of what affects a result besides its input: weights, version, settings."""
    path = Path(model)
    if str(model) in BUILTIN:
        path = Path(str(resources.files("espan"))) / "builtin" / BUILTIN[str(model)]
    settings = scale, options.dtype, options.backend, options.limits.allow_truncated
    described = json.dumps([__version__, *map(str, settings)]).encode()
    return hashlib.sha256(path.read_bytes() + described).hexdigest()[:16]


class Journal:
    """One line of JSON per finished image, appended to a hidden file in the folder of results.

    settings: from `settings_of`. part: a suffix per machine, if several write to one folder.
    A line has the result's name and the stamps of input and result, and is valid while both match.
    Incomplete lines of killed processes are ignored. The file can be deleted at any time.
    A symbolic link is not followed: anyone with write access to the folder may have created it.
    """

    def __init__(self, settings: str, part: str = ""):
        self.settings, self.name = settings, NAME + part
        self._lock = threading.Lock()
        self._descriptors: dict[Path, int | None] = {}
        self._known: dict[Path, set] = {}

    def has(self, job: FileJob) -> bool:
        """Whether the result exists and was made with these settings from the current input."""
        if job.root is None:
            return False
        with self._lock:
            if job.root not in self._known:
                self._known[job.root] = _read_all(job.root)
            known = self._known[job.root]
        source, result = stamp_of(job.input), stamp_of(job.output)
        if source is None or result is None:
            return False
        return self._entry(job.root, job, source, result) in known

    def add(self, job: FileJob, source: Stamp | None) -> None:
        """Records that `job` is done; `source` is the stamp of the input before it was read."""
        result = stamp_of(job.output)
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

    def _entry(self, root: Path, job: FileJob, source: Stamp, result: Stamp) -> tuple:
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
        """Stops recording after an error; the run goes on."""
        log.warning("%s: %s; --resume will repeat this run", root / self.name, error.strerror)
        if (descriptor := self._descriptors.get(root)) is not None:
            os.close(descriptor)
        self._descriptors[root] = None


def _read_all(root: Path) -> set[tuple]:
    """The entries of all journals in a folder."""
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
