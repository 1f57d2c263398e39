"""The `espan` command. It parses, calls and prints; torch is imported only when work begins."""

import argparse
import logging
from collections.abc import Sequence
from typing import NoReturn

from espan import __version__
from espan.cli import average, compare, completion, demo, doctor, evaluate, export, train, upscale
from espan.cli.exits import FAILED, INTERRUPTED, WRONG_USE
from espan.cli.interrupt import interruptible
from espan.cli.say import say, silence_stdout
from espan.errors import (
    DeviceError,
    DeviceLostError,
    EspanError,
    InputError,
    WeightsError,
    escaped,
)

# Commands report and count errors of single files themselves; an error that ends a command is about
# its arguments.
_ARGUMENT_ERRORS = (InputError, WeightsError, DeviceError)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command; returns its exit code."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(
        format="espan: %(message)s", level=logging.ERROR if arguments.quiet else logging.INFO
    )
    try:
        with interruptible():
            return arguments.run(arguments)
    except KeyboardInterrupt:
        say("espan: interrupted")
        return INTERRUPTED
    except EspanError as error:
        say(f"espan: {error}")
        lost = isinstance(error, DeviceLostError)
        return WRONG_USE if isinstance(error, _ARGUMENT_ERRORS) and not lost else FAILED
    except BrokenPipeError:  # the reader of our output is gone
        silence_stdout()
        return FAILED


class _Parser(argparse.ArgumentParser):
    """Reports an error in one line, without the usage that argparse prints before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_USE, f"{self.prog}: {escaped(message)} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="espan",
        description="Upscale images with ESPAN, SPAN and SPAN-F networks; train and measure them.",
        epilog="Exit codes: 0 success, 1 some inputs failed, 2 wrong arguments, 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"espan {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run, help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(run=run, commands=commands.choices)
        sub.add_argument("--quiet", "-q", action="store_true", help="print errors only")
        return sub

    modules = (upscale, compare, demo, evaluate, train, average, export, doctor, completion)
    for module in modules:
        module.add_to(command)
    return parser
