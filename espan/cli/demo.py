"""`espan demo`: a web page that upscales images."""

import argparse
from functools import partial

from espan.cli.exits import OK
from espan.cli.options import add_engine, upscaler_of
from espan.demo.limits import Limits
from espan.system.extras import extra

DEFAULTS = Limits()


def add_to(command) -> None:
    demo = command("demo", run, "Serve a web page that upscales images.")
    demo.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; default: 127.0.0.1, this machine only",
    )
    demo.add_argument("--port", type=int, default=8000, help="0 for any free one; default: 8000")
    demo.add_argument(
        "--name", action="append", default=[], help="accept this host name too; repeatable"
    )
    for name, default, unit, what in (
        ("--max-upload", DEFAULTS.upload // 2**20, "MIB", "largest file, in MiB"),
        ("--max-megapixels", DEFAULTS.pixels // 10**6, "MP", "largest result, in megapixels"),
        ("--queue", DEFAULTS.queue, "N", "images in the queue, of all clients"),
        ("--jobs", DEFAULTS.workers, "N", "images upscaled at a time"),
        ("--time-limit", int(DEFAULTS.seconds), "S", "seconds for one image"),
    ):
        text = f"{what}; default: {default}"
        demo.add_argument(name, type=_positive, default=default, metavar=unit, help=text)
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
