"""Atomic file writes: a file appears in full or not at all, even if the process is killed."""

import atexit
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from espan.errors import EspanError, OutputError
from espan.system.paths import as_path, reason

try:
    import fcntl
except ImportError:  # Windows: leftovers of killed processes are not removed
    fcntl = None  # type: ignore[assignment]  # a module or None

PARTS = ".espan-*.part"
# Temporary files of this process.
_under_way: set[Path] = set()
if hasattr(os, "register_at_fork"):  # the files belong to the parent
    os.register_at_fork(after_in_child=_under_way.clear)


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A context with an empty temporary file in the folder of `path`, renamed to `path` at the end.

    On return, the file and its name are synced to disk, as far as the system supports it. On errors
    and interrupts, the temporary file is removed and an old file at `path` stays. Replaces a
    symbolic link at `path`, not its target.
    Raises OutputError with `path` for errors of the system or an encoder.
    """
    path, temporary = as_path(path, "output", OutputError), None
    try:
        temporary, lock = _new_part(path.parent)
        try:
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            if lock is not None:
                os.close(lock)
        _sync_folder(path.parent)
    except BaseException as error:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink()
        if isinstance(error, EspanError) or not isinstance(error, Exception):
            raise
        raise OutputError(f"{path}: could not be written: {reason(error)}") from error
    finally:
        _under_way.discard(temporary)


def remove_leftovers(folder: Path) -> int:
    """Removes temporary files of killed processes; returns their number.

    Processes lock the files that they write; the system releases the locks when a process ends.
    """
    removed = 0
    for part in _parts(folder):
        with suppress(OSError):  # locked or already removed
            descriptor = os.open(part, os.O_RDWR)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                part.unlink()
                removed += 1
            finally:
                os.close(descriptor)
    return removed


@atexit.register
def _abandon() -> None:
    """Removes the temporary files of this process at its end."""
    for part in [*_under_way]:
        with suppress(OSError):
            part.unlink()


def _new_part(folder: Path) -> tuple[Path, int | None]:
    """Creates a file in `folder`; returns it and the descriptor that holds its lock, if any."""
    while True:
        # Not derived from the file's name, which may already have the maximum length.
        part = folder / PARTS.replace("*", uuid.uuid4().hex)
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        _under_way.add(part)
        if fcntl is None:
            os.close(descriptor)
            return part, None
        with suppress(OSError):  # some file systems have no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return part, descriptor
        os.close(descriptor)  # another process removed it as a leftover before the lock
        _under_way.discard(part)


def _parts(folder: Path) -> list[Path]:
    try:
        return [*folder.glob(PARTS)] if fcntl else []
    except OSError:
        return []


def _sync_folder(folder: Path) -> None:
    """Makes a new name in `folder` survive a power cut, if the system supports it."""
    with suppress(OSError):  # Windows cannot open folders, some file systems cannot sync them
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
