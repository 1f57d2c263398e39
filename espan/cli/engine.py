"""The options of every command that runs a network, and the `Upscaler` they ask for."""

import argparse

# As of `espan.forms`, which imports torch.
BACKENDS = ("auto", "cuda", "triton", "eager", "compile", "openvino", "onnx")


def add_engine(parser: argparse.ArgumentParser, dtype: str = "auto") -> None:
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
    parser.add_argument("--backend", default="auto", choices=BACKENDS)


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


def upscaler_of(arguments: argparse.Namespace, scale: float | None):
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
