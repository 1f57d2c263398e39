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

# What is wrong with a picture is told, and counted, where the pictures are: what gets to the end
# of a command is wrong with its arguments.
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
    except BrokenPipeError:  # the reader of our output has gone: nothing more to say to it
        silence_stdout()
        return FAILED


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong; argparse shows the whole usage before it."""

    def error(self, message: str) -> NoReturn:
        self.exit(WRONG_USE, f"{self.prog}: {escaped(message)} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="espan",
        description="Upscale pictures with ESPAN and its family; train and measure the networks.",
        epilog="Exit codes: 0 all done, 1 some inputs failed, 2 wrong use, 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"espan {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run, help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(run=run, commands=commands.choices)
        sub.add_argument("--quiet", "-q", action="store_true", help="errors only")
        return sub

    rooms = (upscale, compare, demo, evaluate, train, average, export, doctor, completion)
    for room in rooms:
        room.add_to(command)
    return parser
