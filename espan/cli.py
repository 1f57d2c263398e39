"""The `espan` command. It parses, calls and prints; torch is imported only when work begins."""

import argparse
import json
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from math import isfinite

from espan import __version__
from espan.errors import DeviceError, EspanError, InputError, WeightsError

OK, FAILED, WRONG_USE, INTERRUPTED = 0, 1, 2, 130
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
        return arguments.run(arguments)
    except KeyboardInterrupt:
        print("espan: interrupted", file=sys.stderr)
        return INTERRUPTED
    except EspanError as error:
        print(f"espan: {error}", file=sys.stderr)
        return WRONG_USE if isinstance(error, _ARGUMENT_ERRORS) else FAILED
    except BrokenPipeError:  # the reader of our output has gone: nothing more to say to it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="espan",
        description="Upscale pictures with ESPAN and its family; train and measure the networks.",
        epilog="Exit codes: 0 all done, 1 some inputs failed, 2 wrong use, 130 interrupted.",
    )
    parser.add_argument("--version", action="version", version=f"espan {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    def command(name: str, run, help: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help, description=help)
        sub.set_defaults(run=run)
        sub.add_argument("--quiet", "-q", action="store_true", help="errors only")
        return sub

    up = command("upscale", _upscale, "Upscale picture files and folders.")
    up.add_argument("inputs", nargs="*", metavar="IN", help="files, and folders with all below")
    up.add_argument("-i", "--input", action="append", default=[], help="the same as IN")
    up.add_argument("-o", "--output", metavar="OUT", help="file or folder; default: NAME_x4.EXT")
    up.add_argument(
        "-s", "--scale", type=float, help="1 to the model's own; default: the model's own"
    )
    up.add_argument("-f", "--format", help="png, jpg, webp, tif or bmp; default: the input's")
    up.add_argument("--skip-existing", action="store_true", help="leave results that are there")
    up.add_argument("--json", action="store_true", help="one JSON document on stdout")
    _add_engine(up)

    ev = command("eval", _evaluate, "PSNR and SSIM over benchmark sets (see README).")
    ev.add_argument("--data", required=True, metavar="DIR", help="HR/ (and LRx4/), or a folder of")
    ev.add_argument("-s", "--scale", type=int, default=4, choices=(2, 3, 4))
    ev.add_argument("--bicubic", action="store_true", help="measure MATLAB's bicubic instead")
    ev.add_argument("--json", action="store_true", help="one JSON document on stdout")
    _add_engine(ev, dtype="fp32")

    tr = command("train", _train, "Train a network, or go on with a run that was stopped.")
    tr.add_argument("config", metavar="CONFIG.yaml")
    tr.add_argument("overrides", nargs="*", metavar="key=value", help="on top of the file")

    doc = command("doctor", _doctor, "Versions, devices and backends, and why one is missing.")
    doc.add_argument("--json", action="store_true", help="one JSON document on stdout")
    return parser


def _add_engine(parser: argparse.ArgumentParser, dtype: str = "auto") -> None:
    parser.add_argument("-n", "--model", help="built-in name or weights file; default: built-in")
    parser.add_argument(
        "-t",
        "--tile",
        type=_tile,
        default="auto",
        help='input pixels a side; "auto" or 0 chooses, "none" never cuts',
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("-g", "--gpu", type=int, help="number of the GPU; -1 for the CPU")
    where.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument(
        "--dtype",
        default=dtype,
        choices=("auto", "fp32", "fp16", "bf16"),
        help=f"precision to compute in; default: {dtype}",
    )
    parser.add_argument(
        "--backend", default="auto", choices=("auto", "cuda", "triton", "eager", "compile")
    )


def _tile(text: str) -> str | int | None:
    if text in ("auto", "0"):
        return "auto"
    if text == "none":
        return None
    try:
        side = int(text)
    except ValueError:
        side = 0
    if side < 1:
        raise argparse.ArgumentTypeError(f'expected "auto", "none" or a size, got {text!r}')
    return side


def _upscaler(arguments: argparse.Namespace, scale: float | None):
    from espan.upscaler import Upscaler, model_for

    device = arguments.device
    if arguments.gpu is not None:
        device = "cpu" if arguments.gpu < 0 else f"cuda:{arguments.gpu}"
    return Upscaler(
        arguments.model or model_for(4 if scale is None else scale),
        device=device,
        dtype=arguments.dtype,
        backend=arguments.backend,
        tile=arguments.tile,
    )


def _upscale(arguments: argparse.Namespace) -> int:
    inputs = [*arguments.input, *arguments.inputs]
    if not inputs:
        print("espan upscale: no input given (see espan upscale --help)", file=sys.stderr)
        return WRONG_USE
    from tqdm import tqdm

    from espan import batch
    from espan.upscaler import check_scale

    upscaler = _upscaler(arguments, arguments.scale)
    scale = upscaler.scale if arguments.scale is None else arguments.scale
    scale = check_scale(scale, upscaler.scale)
    jobs = batch.plan(inputs, arguments.output, scale=scale, format=arguments.format)
    outcomes = []
    silent = arguments.quiet or not sys.stderr.isatty()
    with tqdm(total=len(jobs), unit="file", disable=silent, leave=False) as bar:

        def progress(job: batch.Job, done: int, total: int) -> None:
            bar.set_postfix_str(f"{job.input.name} {100 * done // total} %")

        for outcome in batch.run(
            jobs, upscaler, scale, skip_existing=arguments.skip_existing, progress=progress
        ):
            outcomes.append(outcome)
            bar.update()
            with bar.external_write_mode(sys.stderr):
                _report(outcome, arguments)
    failed = sum(each.status == "failed" for each in outcomes)
    if arguments.json:
        print(json.dumps([asdict(each) for each in outcomes], indent=2))
    if not outcomes:
        print(f"espan: no pictures in {', '.join(inputs)}", file=sys.stderr)
        return FAILED
    if failed and len(outcomes) > 1:
        print(f"espan: {failed} of {len(outcomes)} failed", file=sys.stderr)
    return FAILED if failed else OK


def _report(outcome, arguments: argparse.Namespace) -> None:
    if outcome.status == "failed":
        print(f"espan: {outcome.error}", file=sys.stderr)
    elif arguments.quiet:
        return
    elif outcome.status == "skipped":
        print(f"{outcome.output} is there, skipped", file=sys.stderr)
    else:
        size = f"{outcome.width} x {outcome.height}"
        print(f"{outcome.output} {size}, {outcome.seconds:.2f} s", file=sys.stderr)


def _evaluate(arguments: argparse.Namespace) -> int:
    from espan.evaluate import COLUMNS, bicubic, evaluate

    if arguments.bicubic:
        upscaler = bicubic(arguments.scale)
    else:
        upscaler = _upscaler(arguments, arguments.scale)
        if upscaler.scale != arguments.scale:
            raise InputError(f"scale: the model's is {upscaler.scale}, not {arguments.scale}")
    rows = []
    for row in evaluate(upscaler, arguments.data, arguments.scale):
        if not arguments.json and not rows:
            print(f"{'set':12} {'picture':16}" + "".join(f"{column:>10}" for column in COLUMNS))
        rows.append(row)
        if row.error:
            print(f"espan: {row.error}", file=sys.stderr)
        elif not arguments.json:
            numbers = "".join(
                f"{value:10.3f}" if column.startswith("psnr") else f"{value:10.4f}"
                for column, value in row.values.items()
            )
            print(f"{row.dataset[:12]:12} {row.name[:16]:16}{numbers}", flush=True)
    if arguments.json:
        # JSON has no infinity, which is the PSNR of equal pictures.
        plain = [asdict(row) for row in rows]
        for row in plain:
            row["values"] = {k: v if isfinite(v) else None for k, v in row["values"].items()}
        print(json.dumps(plain, indent=2))
    return FAILED if any(row.error for row in rows) else OK


def _train(arguments: argparse.Namespace) -> int:
    from espan.config import read_config
    from espan.train import train

    print(train(read_config(arguments.config, arguments.overrides)))
    return OK


def _doctor(arguments: argparse.Namespace) -> int:
    from espan.doctor import examine

    facts = examine()
    if arguments.json:
        print(json.dumps(facts, indent=2))
    else:
        for name, value in facts.items():
            lines = value if isinstance(value, list) else [value]
            print("\n".join(f"{name if i == 0 else '':12} {line}" for i, line in enumerate(lines)))
    return OK


if __name__ == "__main__":
    sys.exit(main())
