"""What a name given by a user stands for, even one that no file can have.

`pathlib` raises for a name that is too long or lies behind a folder that may not be entered, and
whoever opens a FIFO as a file waits for ever. The functions here answer for every name.
"""

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from espan.errors import EspanError, InputError

# A NUL, or a character that the file system's encoding lacks.
_IMPOSSIBLE = "no file can have this name"
# With one slash where a Path was made of it.
_URL = re.compile(r"(https?|ftps?|sftp|file|s3|gs):/|data:", re.IGNORECASE)
# What `why_no_file` says where nothing is.
NOTHING = os.strerror(errno.ENOENT).lower()
_KINDS = {
    stat.S_IFDIR: "is a directory",
    stat.S_IFIFO: "a FIFO, not a file",
    stat.S_IFSOCK: "a socket, not a file",
    stat.S_IFCHR: "a device, not a file",
    stat.S_IFBLK: "a device, not a file",
}


class Found(NamedTuple):
    """A file in a folder, and why it cannot be read as one, if that is known."""

    path: Path
    problem: str | None = None


def as_path(name: Any, what: str, error: type[EspanError] = InputError) -> Path:
    """`name` as a path; `what` says in errors what it is a name of.

    InputError for what is no name at all. `error` for an empty one: it would stand for the current
    folder, and comes from a variable that a script has not set.
    """
    plain = os.fspath(name) if isinstance(name, os.PathLike) else name
    if not isinstance(plain, str):
        raise InputError(f"{what}: expected a path, got {type(name).__name__}")
    if not plain:
        raise error(f"{what}: the name is empty")
    if _URL.match(plain) and not os.path.lexists(plain):
        raise InputError(f"{what}: {plain} is a URL; download it first, files alone are read")
    return Path(plain)


def exists(path: Path) -> bool:
    """Whether there is anything under the name, a link to nothing too."""
    return os.path.lexists(path)


def is_file(path: Path) -> bool:
    """Whether it is a regular file, or a link to one."""
    return stat.S_ISREG(_mode(path) or 0)


def is_folder(path: Path) -> bool:
    """Whether it is a folder, or a link to one."""
    return stat.S_ISDIR(_mode(path) or 0)


def names_folder(output: str | Path) -> bool:
    """Whether results go into `output`: it is a folder, or ends as only a folder's name does."""
    return str(output).endswith(("/", "\\")) or is_folder(Path(output))


def resolved(path: Path) -> Path:
    """The absolute path without links, as far as it can be told."""
    try:
        return Path(os.path.realpath(path))
    except (OSError, ValueError):
        return path.absolute()


def why_no_file(path: Path) -> str | None:
    """Why `path` cannot be read as a file, in a few words; None for a regular file."""
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno == errno.ENOENT and path.is_symlink():
            return "a link to nothing"
        return reason(error).lower()
    except ValueError:
        return _IMPOSSIBLE
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "not a file")


def why_no_result(path: Path) -> str | None:
    """Why no file can be written under the name `path`, as far as the name alone tells."""
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
    """A descriptor of the file `path`, made if `flags` say so.

    OSError where it is a link or no file: nobody is led to another file, nor waits for a FIFO.
    """
    careful = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    try:
        descriptor = os.open(path, flags | careful | getattr(os, "O_BINARY", 0), 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):  # what O_NOFOLLOW says of a link
            raise OSError(error.errno, "a link, not a file") from error
        raise
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, _KINDS.get(stat.S_IFMT(mode), "not a file"))
    return descriptor


def reason(error: Exception) -> str:
    """What the system said of an error, without its number and the name; else all of it."""
    return getattr(error, "strerror", None) or " ".join(str(error).split())


def listing(folder: Path, suffixes: Sequence[str]) -> list[Found]:
    """The files in a folder whose names end so, sorted; as `below`, but no further down.

    InputError where the folder cannot be read.
    """
    try:
        return sorted(_files(_entries(folder), suffixes))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: cannot be searched: {reason(error).lower()}") from error


def folders(folder: Path) -> list[Path]:
    """The folders in a folder, links to some too, sorted. InputError as of `listing`."""
    try:
        inside = (Path(each.path) for each in _entries(folder))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: cannot be searched: {reason(error).lower()}") from error
    return sorted(each for each in inside if is_folder(each))


def below(
    folder: Path, suffixes: Sequence[str], enter: Callable[[Path], bool] = lambda folder: True
) -> list[Found]:
    """The files below a folder whose names end so, and the folders that cannot be read, sorted.

    Names that begin with a dot are passed over, links to folders are not followed, nor are folders
    that `enter` is not True for.
    """
    found: list[Found] = []
    left = [folder]
    while left:  # no recursion: folders nest deeper than Python's stack
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
