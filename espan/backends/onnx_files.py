"""Converts networks to ONNX, and runs ONNX files with ONNX Runtime."""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from espan import __version__
from espan.networks.deploy import copy_to
from espan.networks.network import Network
from espan.system.extras import extra

# The lowest opset of PyTorch's exporter, for older readers.
OPSET = 18


class _Half(nn.Module):
    """A float16 network with float32 input and output."""

    def __init__(self, net: Network):
        super().__init__()
        self.net = net.half()

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.net(x.half()).float()
        return y


def deployed(net: Network, dtype: torch.dtype) -> nn.Module:
    """The module to export: a copy of `net` that computes in `dtype`."""
    copy = copy_to(net, torch.device("cpu"), torch.float32)
    copy = copy.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # of torch
    return _Half(copy) if dtype == torch.float16 else copy


def example(size: tuple[int, int] | None, batch: int) -> Tensor:
    """An example input without sides of 1 or equal sides, on which exporters would specialise."""
    return torch.zeros(batch, 3, *(size or (24, 40)))


def onnx_bytes(
    net: Network,
    dtype: torch.dtype,
    size: tuple[int, int] | None = None,
    described: dict[str, str] | None = None,
) -> bytes:
    """`net` as ONNX: "input" float32 (1, 3, H, W) to "output"."""
    extra("onnxscript", "ONNX", "export")
    with _quiet():
        made = torch.onnx.export(
            deployed(net, dtype),
            (example(size, 1),),
            dynamo=True,
            dynamic_shapes=None if size else ({2: "height", 3: "width"},),
            opset_version=OPSET,
            input_names=["input"],
            output_names=["output"],
            verbose=False,
        )
    assert made is not None  # with dynamo=True
    proto = made.model_proto
    values = [*proto.graph.input, *proto.graph.output, *proto.graph.value_info]
    for part in (proto, proto.graph, *proto.graph.node, *proto.graph.initializer, *values):
        # PyTorch's source locations contain folder names of this machine.
        del part.metadata_props[:]
    for key, value in (described or {}).items():
        proto.metadata_props.add(key=key, value=value)
    proto.producer_name, proto.producer_version = "espan", __version__
    content: bytes = proto.SerializeToString()
    return content


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the exporter's log and warnings about steps, deprecations and optional packages.

    Safe: the exporter raises its errors, and the caller compares the result with the network.
    """
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    before = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loggers, before, strict=True):
            each.setLevel(level)


def read_onnx(model: bytes | Path) -> Callable[[Tensor], Tensor]:
    """An ONNX file as a function of an image, run by ONNX Runtime on the CPU."""
    runtime = extra("onnxruntime", "ONNX", "export")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = runtime.InferenceSession(
        str(model) if isinstance(model, Path) else model,
        options,
        providers=["CPUExecutionProvider"],
    )
    return lambda x: torch.from_numpy(session.run(None, {"input": x.contiguous().numpy()})[0])
