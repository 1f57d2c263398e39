"""Files that appear whole or not at all, whatever happens while they are written."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from espan.errors import EspanError, OutputError


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary path in the same folder; at the end it takes the place of `path`.

    On any error, and on an interrupt, the temporary file goes and an old file at `path` stays.
    OutputError, naming `path`, for what the system or an encoder refuses.
    """
    path = Path(path)
    # Not made from the name of the file, which may already be as long as a name can be.
    temporary = path.with_name(f".espan-{uuid.uuid4().hex}.part")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, EspanError) or not isinstance(error, Exception):
            raise
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise OutputError(f"{path}: could not be written: {reason}") from error
