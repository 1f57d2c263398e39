"""What commands tell a person: lines on stderr in which names do nothing to the terminal."""

import os
import sys

from espan.errors import escaped


def say(line: str) -> None:
    """A line on stderr."""
    print(escaped(line), file=sys.stderr)


def silence_stdout() -> None:
    """What is left for stdout goes nowhere: its reader has gone, and Python would complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
