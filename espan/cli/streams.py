"""`espan upscale - -o -`: one image through standard input or output."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any, BinaryIO, TextIO

from espan.cli import video
from espan.cli.exits import FAILED, OK
from espan.cli.options import model_of, scale_of, upscaler_of
from espan.cli.say import say, silence_stdout
from espan.errors import DeviceLostError, EspanError, InputError, short
from espan.system.paths import is_folder, names_folder
from espan.video.options import READ_SUFFIXES

STREAM = "-"
# Options that apply to files and to several machines only.
_FILES_ONLY = ("skip_existing", "resume", "jobs", "shard", "json", "name")


def wanted(inputs: list[str], output: str | None) -> bool:
    """Whether the arguments name standard input or output."""
    return STREAM in inputs or output == STREAM


def run(arguments: argparse.Namespace, inputs: list[str]) -> int:
    """Upscales one image; InputError for options that do not apply to streams."""
    from espan.images import files

    _refuse(arguments, inputs)
    format = _checked_format(arguments.format, arguments.output)
    source: Any = inputs[0]
    if source == STREAM:
        source = _binary(sys.stdin, "input: standard input")
    target: Any = arguments.output
    if target == STREAM:
        target = _binary(sys.stdout, "output: standard output")
    upscaler = upscaler_of(arguments, model_of(arguments, scale_of(arguments)))
    began = time.perf_counter()
    try:
        upscaler(source, scale_of(arguments), output=target, format=format)
    except DeviceLostError:
        raise
    except EspanError as error:  # about the image or the stream, not about the arguments
        if isinstance(error, files.AnimatedError):  # its hint names a Python function
            what = str(error).rpartition(";")[0]
            error = InputError(f"{what}; name its file, and one for the result with -o")
        say(f"espan: {error}")
        if arguments.output == STREAM:
            silence_stdout()
        return FAILED
    if not arguments.quiet:
        name = "standard output" if arguments.output == STREAM else arguments.output
        say(f"{name}, {time.perf_counter() - began:.2f} s")
    return OK


def _refuse(arguments: argparse.Namespace, inputs: list[str]) -> None:
    if len(inputs) > 1:
        raise InputError(f"input: expected one image with -, got {len(inputs)} inputs")
    if arguments.output is None:
        raise InputError("output: required with standard input: a file, or - for standard output")
    if arguments.output != STREAM and names_folder(arguments.output):
        raise InputError(f"output: {arguments.output} is a folder; name a file, or -")
    suffix = "." + inputs[0].rpartition(".")[2].lower()
    if is_folder(Path(inputs[0])) or suffix in READ_SUFFIXES:
        raise InputError(f"input: expected one image with -o -, got {inputs[0]}")
    for name in _FILES_ONLY:
        if getattr(arguments, name):
            raise InputError(f"{name}: applies to files, not to standard input and output")
    if arguments.engine != "local":
        raise InputError("engine: applies to files, not to standard input and output")
    video.refuse_unused(arguments, [])


def _checked_format(format: str | None, output: str) -> str | None:
    """The format of standard output. None for a file, whose extension must agree: InputError."""
    from espan.images import files

    if format is None:
        return None
    suffix = files.suffix_named(format)
    if output == STREAM:
        return format
    ending = Path(output).suffix.lower()
    if files.WRITE_FORMATS[suffix] != files.WRITE_FORMATS.get(ending):
        raise InputError(f"format: {short(format)} does not match the extension of {output}")
    return None


def _binary(stream: TextIO | None, what: str) -> BinaryIO:
    if stream is None or stream.closed:
        raise InputError(f"{what} is closed")
    if stream.isatty():
        raise InputError(f"{what} is a terminal; redirect it, or name a file")
    return stream.buffer
