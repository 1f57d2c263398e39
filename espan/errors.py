"""The exceptions of this package. Messages name the file or argument, expected and found values.

Names of files and tensors are untrusted: messages of errors and log lines are escaped, so that they
are one line without terminal control sequences.
"""

import logging
import re
from typing import Any

# Control characters, Unicode line ends, bidirectional controls, surrogates of undecodable bytes.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def escaped(text: str) -> str:
    r"""`text` with unsafe characters escaped as in Python and `ls -b`: \n, \x1b."""
    return _UNSAFE.sub(lambda found: _escaped(found[0]), text)


def short(value: Any) -> str:
    """A shortened `repr` of any value: an int may have millions of digits."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= 80 else f"{text[:60]} ..."


def _escaped(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # surrogateescape of a byte in a name that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return ascii(character)[1:-1]


def _escape(record: logging.LogRecord) -> bool:
    record.msg, record.args = escaped(record.getMessage()), None
    return True


logging.getLogger("espan").addFilter(_escape)


class EspanError(Exception):
    """Base of all exceptions of this package."""

    def __str__(self) -> str:
        return escaped(super().__str__())


class InputError(EspanError, ValueError):
    """An image or argument is invalid."""


class LimitError(InputError):
    """An image exceeds a limit of pixels, or a run exceeds the available memory."""


class NonFiniteError(InputError):
    """A pixel is NaN or infinite."""


class OutputError(EspanError, OSError):
    """A result cannot be written, or does not fit its file format."""


class WeightsError(EspanError, ValueError):
    """A weights file is missing, damaged, or does not contain a known network."""


class DeviceError(EspanError, RuntimeError):
    """A device, dtype or backend is not available on this machine, or has failed."""


class DeviceLostError(DeviceError):
    """A GPU failed, and this process cannot use it again."""
