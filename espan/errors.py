"""Every error a caller may want to tell apart; the message names the file, expected and found.

Files and tensors are named by strangers: a message, of an error or in the log, is one line in which
no terminal finds a command.
"""

import logging
import re
from typing import Any

# Control characters, line ends of Unicode, turns of the direction of text, bytes that are no text.
_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def escaped(text: str) -> str:
    """`text` with what a terminal would obey written as Python and `ls -b` write it: \\n, \\x1b."""
    return _OBEYED.sub(lambda found: _spelt(found[0]), text)


def short(value: Any) -> str:
    """`repr` in few characters, of any value: a whole number may have millions of digits."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):
        return f"a {type(value).__name__} too large to show"
    return text if len(text) <= 80 else f"{text[:60]} ..."


def _spelt(character: str) -> str:
    if "\udc80" <= character <= "\udcff":  # how Python holds a byte of a name that is not UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return ascii(character)[1:-1]


def _escape(record: logging.LogRecord) -> bool:
    record.msg, record.args = escaped(record.getMessage()), None
    return True


logging.getLogger("espan").addFilter(_escape)


class EspanError(Exception):
    """Base of all errors raised on purpose by this package."""

    def __str__(self) -> str:
        return escaped(super().__str__())


class InputError(EspanError, ValueError):
    """An image or an argument that cannot be used as it is."""


class LimitError(InputError):
    """Larger than a limit: the pixels of an image, or the memory that a run would need."""


class NonFiniteError(InputError):
    """NaN or infinity where a pixel value should be."""


class OutputError(EspanError, OSError):
    """A result that could not be written, or that its format cannot hold."""


class WeightsError(EspanError, ValueError):
    """A weights file that is missing, damaged, or holds no network known here."""


class DeviceError(EspanError, RuntimeError):
    """A device, dtype or backend that this machine does not have, or has lost."""


class DeviceLostError(DeviceError):
    """A GPU on which work failed: no later work of this process can succeed there."""
