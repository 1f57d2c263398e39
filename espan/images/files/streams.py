"""Pictures that are no files: bytes, and open binary files such as standard input and output."""

from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from select import select
from tempfile import SpooledTemporaryFile
from typing import IO, Any, BinaryIO, NamedTuple, TypeAlias

from espan.errors import EspanError, InputError, LimitError, OutputError, short
from espan.images.files.heif import is_heif
from espan.images.files.pillow import is_known
from espan.options import Limits
from espan.system.atomic import whole_file
from espan.system.paths import reason

Data: TypeAlias = bytes | bytearray | memoryview | BinaryIO

# Bytes of a pixel that is not compressed at all, and of what else a file may hold: more is no
# picture within the limits, and /dev/zero has no end.
_PIXEL, _REST = 8, 2**26
# Bytes of a result that wait in memory; more of them wait in a file.
_SPOOLED = 2**26
# Bytes that are read or handed on at a time.
_CHUNK = 1 << 20
# Bytes of an open file that tell whether it is an image.
_HEAD = 1 << 10


class Encoded(NamedTuple):
    """A picture's file that lies in memory, and what errors call it."""

    data: bytes
    name: str

    def __str__(self) -> str:
        return self.name


class Stream(NamedTuple):
    """An open binary file for a result, whose `suffix` names the format as that of a path does."""

    file: IO[bytes]
    suffix: str

    def __str__(self) -> str:
        return name_of(self.file)


class Pages(Stream):
    """A TIFF under way: each result written to it becomes its next page.

    big: whether it is a BigTIFF. last: the page before, None at first.
    """

    big = False
    last: Any = None


Target: TypeAlias = str | Path | Stream


def is_data(image: Any) -> bool:
    """Whether it is bytes or an open file: a picture that is still encoded."""
    return isinstance(image, bytes | bytearray | memoryview) or hasattr(image, "read")


def name_of(file: Any) -> str:
    """What errors call bytes or an open file."""
    name = getattr(file, "name", None)
    if isinstance(name, str):
        return name
    return "the open file" if hasattr(file, "read") or hasattr(file, "write") else "the bytes"


def encoded(image: Data, limits: Limits) -> Encoded:
    """All of the bytes; LimitError where they are more than a picture within the limits has.

    An open file that begins like no image is read no further, and `read` refuses what there is.
    """
    name, most = name_of(image), _PIXEL * limits.max_input + _REST
    if isinstance(image, bytes | bytearray | memoryview):
        return Encoded(bytes(image), name)
    data, known = bytearray(), False
    try:
        while chunk := _read(image, name, min(_CHUNK if known else _HEAD, most + 1 - len(data))):
            data += chunk
            if len(data) > most:
                raise LimitError(f"{name}: over {most:,} bytes, which no picture needs")
            if not known and len(data) >= _HEAD:
                known = is_known(bytes(data)) or is_heif(BytesIO(data))
                if not known:
                    break
    except (OSError, ValueError) as error:
        if isinstance(error, EspanError):
            raise
        raise InputError(f"{name}: cannot be read: {reason(error)}") from error
    return Encoded(bytes(data), name)


def _read(file: Any, name: str, count: int) -> bytes:
    """The next bytes of an open file, none at its end; waits for one that is not blocking."""
    while (chunk := file.read(count)) is None:
        try:
            select([file], [], [])
        except (TypeError, ValueError, OSError) as error:  # no descriptor, or of no such kind
            what = "has no bytes yet (read() gives None); make it blocking"
            raise InputError(f"{name}: {what}") from error
    if not isinstance(chunk, bytes):
        got = type(chunk).__name__
        raise InputError(f"{name}: expected a file opened as binary, which gives {got}")
    return chunk


def stream_to(file: Any, suffix: str) -> Stream:
    """The Stream of an open file; InputError for what cannot be written to."""
    if not hasattr(file, "write"):
        got = short(file) if file is None else type(file).__name__
        raise InputError(f"output: expected a path or an open binary file, got {got}")
    return Stream(file, suffix)


def _copy(whole: IO[bytes], file: Any) -> None:
    """All bytes; a file without a buffer may take fewer at a time than it is given."""
    while found := whole.read(_CHUNK):
        chunk = memoryview(found)
        while len(chunk):
            # Files that are not io's may return nothing.
            taken = file.write(chunk)
            if taken == 0:
                raise OSError("it takes no more bytes")
            chunk = chunk[len(chunk) if taken is None else taken :]


@contextmanager
def opened(target: Target) -> Iterator[IO[bytes]]:
    """A file to write a result to, which reaches `target` when it is complete; OutputError."""
    if not isinstance(target, Stream):
        with whole_file(target) as temporary, temporary.open("wb") as file:
            yield file
        return
    if isinstance(target, Pages):
        yield target.file
        return
    try:
        with SpooledTemporaryFile(_SPOOLED) as whole:
            yield whole
            whole.seek(0)
            _copy(whole, target.file)
            if hasattr(target.file, "flush"):
                target.file.flush()
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        if isinstance(error, EspanError):
            raise
        raise OutputError(f"{target}: could not be written: {reason(error)}") from error
