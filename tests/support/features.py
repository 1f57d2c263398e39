"""`python -m tests.support.features`: the table of features, from the lists that the code goes by.

With `--write` it replaces the table of the README. A test fails where the two differ.
"""

import argparse
import re
from collections.abc import Iterable
from pathlib import Path

from espan import animation
from espan.checkpoints.weights import ARCHITECTURES, BUILTIN
from espan.cli import _parser, completion
from espan.exporting import SUFFIXES as EXPORTS
from espan.images import files
from espan.options import BACKENDS, DEVICES, DTYPES
from espan.sizes import LARGEST, NAMES
from espan.video import options as video
from espan_kernels import OPS

README = Path(__file__).parents[2] / "README.md"
MARKED = re.compile(r"(?<=<!-- features -->\n).*?(?=<!-- end -->)", re.DOTALL)


def features() -> dict[str, list[str]]:
    """What there is, by kind. Needs PyAV, for the names of encoders."""
    from espan.video.encoding import ENCODERS

    return {
        "images read": _endings(files.READ_SUFFIXES),
        "images written": _endings(files.WRITE_FORMATS),
        "animations read and written": _endings(animation.SUFFIXES),
        "videos read": _endings(video.READ_SUFFIXES),
        "videos written": _endings(video.WRITE_SUFFIXES),
        "video encoders (`--codec`)": [*ENCODERS],
        "sizes": [f"1 to {LARGEST} times", *(f"--{name.replace('_', '-')}" for name in NAMES)],
        "built-in networks (`-n`)": [*BUILTIN],
        "weights of": [*ARCHITECTURES],
        "devices (`--device`)": [*DEVICES],
        "precisions (`--dtype`)": ["auto", *DTYPES],
        "backends (`--backend`)": [*BACKENDS],
        "operators with kernels": [*OPS],
        "exports (`espan export -f`)": [*EXPORTS],
        "commands": _commands(),
        "shells (`espan completion`)": [*completion.SHELLS],
    }


def table() -> str:
    """The features as Markdown."""
    rows = [f"| {kind} | {', '.join(names)} |" for kind, names in features().items()]
    return "\n".join(["| feature | values |", "| --- | --- |", *rows, ""])


def written(document: str) -> str:
    """The document with the table as the code has it; ValueError where it has no place for it."""
    if not MARKED.search(document):
        raise ValueError("no <!-- features --> before an <!-- end -->")
    return MARKED.sub(lambda _: table(), document, count=1)


def _commands() -> list[str]:
    (commands,) = (action for action in _parser()._actions if action.choices)
    return [*commands.choices]


def _endings(suffixes: Iterable[str]) -> list[str]:
    return [suffix.removeprefix(".") for suffix in suffixes]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--write", action="store_true", help="into the README")
    if arguments.parse_args().write:
        README.write_text(written(README.read_text()))
    else:
        print(table(), end="")


if __name__ == "__main__":
    main()
