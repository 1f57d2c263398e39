"""Files that appear whole or not at all, whatever happens while they are written."""

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
except ImportError:  # Windows: leftovers of killed runs stay there
    fcntl = None  # type: ignore[assignment]  # a module, or none

PARTS = ".espan-*.part"
# What this process is writing.
_under_way: set[Path] = set()
if hasattr(os, "register_at_fork"):  # what the parent writes is not the child's
    os.register_at_fork(after_in_child=_under_way.clear)


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary file in the same folder, empty; at the end it takes the place of `path`.

    The file and its name are on the disk when this returns, as far as the system can tell. On any
    error, and on an interrupt, the temporary file goes and an old file at `path` stays. A symbolic
    link at `path` is replaced, not what it points to.
    OutputError, naming `path`, for what the system or an encoder refuses.
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
    """Removes the temporary files of processes that were killed; those being written stay.

    A file being written is locked, and the system drops the locks of a process that ends.
    """
    removed = 0
    for part in _parts(folder):
        with suppress(OSError):  # locked, or gone meanwhile
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
    """Removes what this process is writing as it ends."""
    for part in [*_under_way]:
        with suppress(OSError):
            part.unlink()


def _new_part(folder: Path) -> tuple[Path, int | None]:
    """An empty file in `folder`, and a descriptor that holds its lock where there are locks."""
    while True:
        # Not made from the name of the file, which may already be as long as a name can be.
        part = folder / PARTS.replace("*", uuid.uuid4().hex)
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        _under_way.add(part)
        if fcntl is None:
            os.close(descriptor)
            return part, None
        with suppress(OSError):  # some file systems have none
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return part, descriptor
        os.close(descriptor)  # taken for a leftover in the moment before the lock
        _under_way.discard(part)


def _parts(folder: Path) -> list[Path]:
    try:
        return [*folder.glob(PARTS)] if fcntl else []
    except OSError:
        return []


def _sync_folder(folder: Path) -> None:
    """Makes a new name in `folder` last through a power cut, where the system knows how."""
    with suppress(OSError):  # Windows does not open folders, some file systems do not sync them
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
