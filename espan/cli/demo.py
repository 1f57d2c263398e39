"""`espan demo`: a web page that upscales pictures."""

import argparse
from functools import partial

from espan.cli.exits import OK
from espan.cli.options import add_engine, upscaler_of
from espan.demo.limits import Limits
from espan.system.extras import extra

USUAL = Limits()


def add_to(command) -> None:
    demo = command("demo", run, "A web page that upscales pictures, for this machine.")
    demo.add_argument("--host", default="127.0.0.1", help="address; default: 127.0.0.1, only here")
    demo.add_argument("--port", type=int, default=8000, help="0 takes a free one; default: 8000")
    demo.add_argument("--name", action="append", default=[], help="another host name of the page")
    for name, usual, unit, what in (
        ("--max-upload", USUAL.upload // 2**20, "MIB", "of a file"),
        ("--max-megapixels", USUAL.pixels // 10**6, "MP", "of a result"),
        ("--queue", USUAL.queue, "N", "pictures in all"),
        ("--jobs", USUAL.workers, "N", "pictures at a time"),
        ("--time-limit", int(USUAL.seconds), "S", "for a picture"),
    ):
        said = f"{what}; default: {usual}"
        demo.add_argument(name, type=_positive, default=usual, metavar=unit, help=said)
    add_engine(demo, several=True)


def run(arguments: argparse.Namespace) -> int:
    for package in ("starlette", "uvicorn"):
        extra(package, "the page", "demo")
    from espan.demo.server import listen, serve
    from espan.demo.work import Work

    limits = Limits(
        upload=arguments.max_upload * 2**20,
        pixels=arguments.max_megapixels * 10**6,
        queue=arguments.queue,
        workers=arguments.jobs,
        seconds=arguments.time_limit,
    )
    listener = listen(arguments.host, arguments.port)

    work = Work(partial(upscaler_of, arguments), arguments.model or [], limits)
    serve(listener, work, limits, [arguments.host, *arguments.name])
    return OK


def _positive(text: str) -> int:
    value = int(text) if text.isdecimal() else 0
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, got {text!r}")
    return value
