"""Encoded frames on disk while a video is in progress, so that a restart continues from there."""

import hashlib
import json
import os
import shutil
import struct
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from espan.errors import EspanError, OutputError
from espan.system.paths import exists, is_file, reason

try:
    import fcntl
except ImportError:  # Windows: a second run is not detected
    fcntl = None  # type: ignore[assignment]  # a module, or none

_HEAD = struct.Struct("<qqBI")


class Coded(NamedTuple):
    """An encoded frame; times in the clip's time base."""

    pts: int
    duration: int
    keyframe: bool
    data: bytes


@contextmanager
def writing(output: Path) -> Iterator[None]:
    """Turns an OSError into an OutputError that names the output."""
    try:
        yield
    except OSError as error:
        if isinstance(error, EspanError):
            raise
        raise OutputError(f"{output}: could not be written: {reason(error)}") from error


@contextmanager
def exclusive(output: Path) -> Iterator[None]:
    """Locks a file beside the output, so that no other process writes the same output.

    Raises OutputError if another process has the lock. The system releases it if the process dies.
    """
    if fcntl is None:
        yield
        return
    path = output.with_name(f".espan-{_hashed(output)}.lock")
    with writing(output):
        descriptor = _locked(path)
    if descriptor is None:
        raise OutputError(f"{output}: another run is writing it")
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _locked(path: Path) -> int | None:
    """A descriptor that holds the lock, or None if another process holds it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:  # some file systems have no locks
            return descriptor
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # its last holder removed the file just before we locked it: retry


def _hashed(output: Path) -> str:
    """A hash of the file name, because the name itself may have the maximum length already."""
    return hashlib.sha256(os.fsencode(output.name)).hexdigest()[:16]


class Segments:
    """The complete segments in a folder beside `output`, for the work that `key` describes.

    The constructor removes segments of any other work.
    """

    def __init__(self, output: Path, key: dict):
        self.folder = output.with_name(f".espan-{_hashed(output)}")
        self.output, self.count = output, 0
        described = json.dumps(key, indent=1, default=str)
        noted = self.folder / "work.json"
        with writing(output):
            if not is_file(noted) or noted.read_text() != described:
                self.remove()
                self.folder.mkdir()
                noted.write_text(described)
        while is_file(self._path(self.count)):
            self.count += 1
        self.frames = sum(1 for _ in self.times())

    def write(self, packets: Iterable[Coded]) -> None:
        """Writes the next segment; it gets its name when all packets are in it."""
        part = self.folder / "next.part"
        with writing(self.output):
            with part.open("wb") as file:
                for pts, duration, keyframe, data in packets:
                    file.write(_HEAD.pack(pts, duration, keyframe, len(data)))
                    file.write(data)
                    self.frames += 1
                file.flush()
                os.fsync(file.fileno())
            part.replace(self._path(self.count))
        self.count += 1

    def times(self) -> Iterator[int]:
        """The pts of all frames, in decoding order."""
        return (pts for pts, *_ in self._records(data=False))

    def packets(self) -> Iterator[Coded]:
        """All frames, in decoding order."""
        return self._records(data=True)

    def _records(self, data: bool) -> Iterator[Coded]:
        for number in range(self.count):
            with self._path(number).open("rb") as file:
                while head := file.read(_HEAD.size):
                    pts, duration, keyframe, size = _HEAD.unpack(head)
                    if data:
                        yield Coded(pts, duration, bool(keyframe), file.read(size))
                    else:
                        file.seek(size, 1)
                        yield Coded(pts, duration, bool(keyframe), b"")

    def remove(self) -> None:
        with writing(self.output):
            if exists(self.folder):
                shutil.rmtree(self.folder)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06}.segment"
