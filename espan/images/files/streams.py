"""Encoded images in memory or in open binary files, such as standard input and output."""

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

# Bytes per uncompressed pixel, and bytes of metadata. Longer input cannot be an image within the
# limits; /dev/zero never ends.
_PIXEL, _REST = 8, 2**26
# Results up to this many bytes are buffered in memory, larger ones in a temporary file.
_SPOOLED = 2**26
# Bytes per read or write.
_CHUNK = 1 << 20
# Bytes that suffice to recognise an image.
_HEAD = 1 << 10


class Encoded(NamedTuple):
    """The content of an image file, and its name in errors."""

    data: bytes
    name: str

    def __str__(self) -> str:
        return self.name


class Stream(NamedTuple):
    """An open binary file for a result; `suffix` selects the format, as for a path."""

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
    """Whether `image` is an encoded image: bytes or an open file."""
    return isinstance(image, bytes | bytearray | memoryview) or hasattr(image, "read")


def name_of(file: Any) -> str:
    """The name of bytes or an open file in errors."""
    name = getattr(file, "name", None)
    if isinstance(name, str):
        return name
    return "the open file" if hasattr(file, "read") or hasattr(file, "write") else "the bytes"


def encoded(image: Data, limits: Limits) -> Encoded:
    """Reads all bytes; raises LimitError if an image within the limits cannot be that long.

    Stops after the first bytes of an open file if they are not the beginning of an image; `read`
    then refuses them.
    """
    name, most = name_of(image), _PIXEL * limits.max_input + _REST
    if isinstance(image, bytes | bytearray | memoryview):
        return Encoded(bytes(image), name)
    data, known = bytearray(), False
    try:
        while chunk := _read(image, name, min(_CHUNK if known else _HEAD, most + 1 - len(data))):
            data += chunk
            if len(data) > most:
                raise LimitError(f"{name}: over {most:,} bytes, too long for an image")
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
    """Reads the next bytes of an open file, b"" at its end; waits for non-blocking files."""
    while (chunk := file.read(count)) is None:
        try:
            select([file], [], [])
        except (TypeError, ValueError, OSError) as error:  # no descriptor, or not selectable
            what = "has no bytes yet (read() returns None); make it blocking"
            raise InputError(f"{name}: {what}") from error
    if not isinstance(chunk, bytes):
        got = type(chunk).__name__
        raise InputError(f"{name}: expected a binary file, but read() returns {got}")
    return chunk


def stream_to(file: Any, suffix: str) -> Stream:
    """Wraps an open file; raises InputError if it has no write()."""
    if not hasattr(file, "write"):
        got = short(file) if file is None else type(file).__name__
        raise InputError(f"output: expected a path or an open binary file, got {got}")
    return Stream(file, suffix)


def _copy(whole: IO[bytes], file: Any) -> None:
    """Copies all bytes; an unbuffered file may accept only part of a write."""
    while found := whole.read(_CHUNK):
        chunk = memoryview(found)
        while len(chunk):
            # File-like objects may return None.
            taken = file.write(chunk)
            if taken == 0:
                raise OSError("it accepts no more bytes")
            chunk = chunk[len(chunk) if taken is None else taken :]


@contextmanager
def opened(target: Target) -> Iterator[IO[bytes]]:
    """Yields a file for a result, which reaches `target` once complete; raises OutputError."""
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
