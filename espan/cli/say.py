"""What commands tell a person: lines on stderr in which names do nothing to the terminal."""

import sys

from espan.errors import escaped


def say(line: str) -> None:
    """A line on stderr."""
    print(escaped(line), file=sys.stderr)
