"""Messages of commands on stderr, with control characters escaped."""

import os
import sys

from espan.errors import escaped


def say(line: str) -> None:
    """Prints a line on stderr."""
    print(escaped(line), file=sys.stderr)


def silence_stdout() -> None:
    """Discards further output on stdout: its reader is gone, and flushing would raise again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
