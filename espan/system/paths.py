"""Safe checks of names given by users, also of names that no file can have.

`pathlib` raises for names that are too long or in folders without permission, and opening a FIFO as
a file blocks forever. The functions here handle all names.
"""

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from espan.errors import EspanError, InputError

# A NUL, or a character outside the file system's encoding.
_IMPOSSIBLE = "no file can have this name"
# With a single slash, as in a Path of a URL.
_URL = re.compile(r"(https?|ftps?|sftp|file|s3|gs):/|data:", re.IGNORECASE)
# The result of `why_no_file` if the file does not exist.
NOTHING = os.strerror(errno.ENOENT).lower()
_KINDS = {
    stat.S_IFDIR: "is a directory",
    stat.S_IFIFO: "a FIFO, not a file",
    stat.S_IFSOCK: "a socket, not a file",
    stat.S_IFCHR: "a device, not a file",
    stat.S_IFBLK: "a device, not a file",
}


class Found(NamedTuple):
    """A file in a folder, and the reason if it is known to be unreadable."""

    path: Path
    problem: str | None = None


def as_path(name: Any, what: str, error: type[EspanError] = InputError) -> Path:
    """`name` as a path; `what` is its argument's name in error messages.

    Raises InputError if it is neither text nor a path. Raises `error` for an empty name, which
    would be the current folder, but usually comes from an unset variable of a script.
    """
    plain = os.fspath(name) if isinstance(name, os.PathLike) else name
    if not isinstance(plain, str):
        raise InputError(f"{what}: expected a path, got {type(name).__name__}")
    if not plain:
        raise error(f"{what}: the name is empty")
    if _URL.match(plain) and not os.path.lexists(plain):
        raise InputError(f"{what}: {plain} is a URL; download it first, only files can be read")
    return Path(plain)


def exists(path: Path) -> bool:
    """Whether the name exists, including broken links."""
    return os.path.lexists(path)


def is_file(path: Path) -> bool:
    """Whether `path` is a regular file or a link to one."""
    return stat.S_ISREG(_mode(path) or 0)


def is_folder(path: Path) -> bool:
    """Whether `path` is a folder or a link to one."""
    return stat.S_ISDIR(_mode(path) or 0)


def names_folder(output: str | Path) -> bool:
    """Whether `output` is a folder for results: it is one, or ends with a slash."""
    return str(output).endswith(("/", "\\")) or is_folder(Path(output))


def resolved(path: Path) -> Path:
    """The absolute path with links resolved as far as possible."""
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError):
        return path.absolute()


def why_no_file(path: Path) -> str | None:
    """The reason why `path` cannot be read as a file, or None for a regular file."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno == errno.ENOENT and path.is_symlink():
            return "a broken link"
        return reason(error).lower()
    except ValueError:
        return _IMPOSSIBLE
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "not a file")


def why_no_result(path: Path) -> str | None:
    """The reason why `path` cannot be the name of a result, or None; looks at the name only."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return None
    except OSError as error:
        return reason(error)
    except ValueError:
        return _IMPOSSIBLE
    return "is a folder" if stat.S_ISDIR(mode) else None


def open_regular(path: Path, flags: int) -> int:
    """Opens the regular file `path` and returns its descriptor; creates it if `flags` say so.

    Raises OSError for links and special files: never follows a link, never blocks on a FIFO.
    """
    safe = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags | safe | getattr(os, "O_BINARY", 0), 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):  # O_NOFOLLOW on a link
            raise OSError(error.errno, "a link, not a file") from error
        raise
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, _KINDS.get(stat.S_IFMT(mode), "not a file"))
    return descriptor


def reason(error: Exception) -> str:
    """The system's message of an error without errno and file name, or else its full text."""
    return getattr(error, "strerror", None) or " ".join(str(error).split())


def listing(folder: Path, suffixes: Sequence[str]) -> list[Found]:
    """The files with these suffixes in a folder, sorted; not recursive, otherwise same as `below`.

    Raises InputError if the folder cannot be read.
    """
    try:
        return sorted(_files(_entries(folder), suffixes))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: cannot be searched: {reason(error).lower()}") from error


def folders(folder: Path) -> list[Path]:
    """The folders in a folder and links to folders, sorted. Raises InputError like `listing`."""
    try:
        inside = (Path(each.path) for each in _entries(folder))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: cannot be searched: {reason(error).lower()}") from error
    return sorted(each for each in inside if is_folder(each))


def below(
    folder: Path, suffixes: Sequence[str], enter: Callable[[Path], bool] = lambda folder: True
) -> list[Found]:
    """The files with these suffixes below a folder, and the unreadable folders, sorted.

    Skips names that start with a dot, links to folders, and folders for which `enter` is False.
    """
    found: list[Found] = []
    left = [folder]
    while left:  # no recursion: folders may nest deeper than Python's stack
        here = left.pop()
        try:
            entries = _entries(here)
        except (OSError, ValueError) as error:
            found.append(Found(here, f"cannot be searched: {reason(error).lower()}"))
            continue
        found += _files(entries, suffixes)
        inside = (Path(each.path) for each in entries if _is_real_folder(each))
        left += [each for each in inside if enter(each)]
    return sorted(found)


def _entries(folder: Path) -> list[os.DirEntry]:
    with os.scandir(folder) as entries:
        return [each for each in entries if not each.name.startswith(".")]


def _files(entries: Sequence[os.DirEntry], suffixes: Sequence[str]) -> Iterator[Found]:
    for path in (Path(each.path) for each in entries):
        if path.suffix.lower() in suffixes and not is_folder(path):
            yield Found(path, why_no_file(path))


def _is_real_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except (OSError, ValueError):
        return None
