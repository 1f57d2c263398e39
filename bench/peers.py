"""Other ways to run the network. Each builder takes a network and images, or raises AbsentError."""

import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench import ncnn_model
from bench.cudnn_graph import CudnnNetwork
from bench.timing import one_line
from espan.backends.select import backend_of
from espan.errors import DeviceError
from espan.images.pixels import to_network_input
from espan.networks.deploy import copy_to
from espan.networks.espan import ESPAN
from espan.networks.network import Network
from espan.networks.span import SPAN

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


class AbsentError(Exception):
    """A peer is unavailable; the message is the reason."""


@dataclass(frozen=True)
class Built:
    """One way to run a network.

    `alone` runs on prepared input; `values` converts its output to an array (N, 3, sH, sW) in 0..1,
    None if its weights differ. `end_to_end` runs from uint8 (H, W, 3) to uint8, `pixels` its part
    on the device, from uint8 (1, 3, H, W) to uint8. `own_graph`: which of "alone" and "end_to_end"
    replay their own CUDA graphs.
    """

    dtype: str
    alone: Callable[[], object]
    values: Callable[[object], np.ndarray] | None
    end_to_end: Callable[[], np.ndarray] | None = None
    pixels: Callable[[Tensor], Tensor] | None = None
    own_graph: tuple[str, ...] = ()


def compiles(impl: str) -> bool:
    """Whether this contender compiles before it runs, which takes seconds to minutes."""
    return "compile" in impl


def prepared(images: np.ndarray, device, dtype: torch.dtype) -> Tensor:
    """uint8 (N, H, W, 3) -> (N, 3, H, W) in 0..1, channels_last."""
    return to_network_input(torch.from_numpy(images).movedim(3, 1), torch.device(device), dtype)


def to_array(y: Tensor) -> np.ndarray:
    return y.float().cpu().numpy()


def _pixels(y: np.ndarray) -> np.ndarray:
    """(1, 3, H, W) in 0..1 as a uint8 image (H, W, 3)."""
    y = np.clip(y[0], 0, 1)
    y *= 255
    return np.rint(y, out=y).astype(np.uint8).transpose(1, 2, 0)


def _in_inference(run: Callable, x) -> Callable:
    def call():
        with torch.inference_mode():
            return run(x)

    return call


def _torch_built(run: Callable, kind: str, images, device, own_graph=()) -> Built:
    """Wraps a function of a tensor; PyTorch's operators convert the image before and after."""
    dtype = DTYPES[kind]
    alone = _in_inference(run, prepared(images, device, dtype))
    if len(images) != 1:
        return Built(kind, alone, to_array, own_graph=own_graph)

    def pixels(x: Tensor) -> Tensor:
        with torch.inference_mode():
            y = run(to_network_input(x, device, dtype)).float()
            return (y.clamp(0, 1) * 255).round().to(torch.uint8)

    def end_to_end() -> np.ndarray:
        return pixels_to_array(pixels(torch.from_numpy(images).permute(0, 3, 1, 2)))

    return Built(kind, alone, to_array, end_to_end, pixels, own_graph)


def pixels_to_array(y: Tensor) -> np.ndarray:
    """(1, 3, H, W) on any device as (H, W, 3)."""
    return y[0].permute(1, 2, 0).cpu().numpy()


def eager(kind: str, compiled: str | None = None):
    """PyTorch's operators, channels_last, with cuDNN autotuning."""

    def build(net: Network, images: np.ndarray, device: torch.device) -> Built:
        torch.backends.cudnn.benchmark = True
        run = copy_to(net, device, DTYPES[kind])
        if compiled:
            run = torch.compile(run, mode=compiled)
        own_graph = ("alone", "end_to_end") if compiled == "max-autotune" else ()
        return _torch_built(run, kind, images, device, own_graph)

    return build


def ours(kind: str, backend: str = "auto"):
    """What `espan.Upscaler` runs with this backend."""

    def build(net: Network, images: np.ndarray, device: torch.device) -> Built:
        dtype = DTYPES[kind]
        try:
            run = backend_of(copy_to(net, device, dtype), backend)
        except DeviceError as error:
            raise AbsentError(one_line(error)) from error
        x = prepared(images, device, dtype)
        end_to_end = None
        if len(images) == 1:
            try:
                from espan import Upscaler
            except ImportError:  # without Pillow only the network runs
                Upscaler = None
            if Upscaler:
                up = Upscaler(net, device=device, dtype=kind, backend=backend, tile=None)
                end_to_end = lambda: up(images[0])  # noqa: E731
        return Built(kind, _in_inference(run, x), to_array, end_to_end, own_graph=("end_to_end",))

    return build


def _onnx_file(net: Network, images: np.ndarray, folder: str) -> str:
    """Exports the network as ONNX for this image size, which suits the runtimes best."""
    path = str(Path(folder) / "net.onnx")
    x = prepared(images, "cpu", torch.float32).contiguous()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.onnx.export(
                copy_to(net, torch.device("cpu"), torch.float32), (x,), path, dynamo=False
            )
        except Exception as error:  # from the exporter or missing packages
            raise AbsentError(f"ONNX export: {one_line(error)}") from error
    return path


def _runtime(kind: str, x: np.ndarray, infer: Callable, images: np.ndarray) -> Built:
    def end_to_end():
        return _pixels(infer(images.transpose(0, 3, 1, 2) / np.float32(255)))

    return Built(kind, lambda: infer(x), lambda y: y, end_to_end if len(images) == 1 else None)


def _planes(images: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2)) / np.float32(255)


def onnxruntime(net: Network, images: np.ndarray, device: torch.device) -> Built:
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise AbsentError(one_line(error)) from error
    options = ort.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    with tempfile.TemporaryDirectory() as folder:
        path = _onnx_file(net, images, folder)
        session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return _runtime("fp32", _planes(images), lambda x: session.run(None, {name: x})[0], images)


@cache
def _openvinos_core():
    """One core, never freed: without its signal stack the next signal would crash the bench."""
    try:
        from openvino import Core
    except ImportError as error:
        raise AbsentError(one_line(error)) from error
    return Core()


def openvino(kind: str, hint: str):
    def build(net: Network, images: np.ndarray, device: torch.device) -> Built:
        core = _openvinos_core()
        options = {
            "INFERENCE_PRECISION_HINT": hint,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        with tempfile.TemporaryDirectory() as folder:
            path = _onnx_file(net, images, folder)
            request = core.compile_model(path, "CPU", options).create_infer_request()

        def infer(x):
            return next(iter(request.infer({0: x}).values()))

        return _runtime(kind, _planes(images), infer, images)

    return build


def ncnn(kind: str):
    def build(net: Network, images: np.ndarray, device: torch.device) -> Built:
        try:
            import ncnn as library
        except ImportError as error:
            raise AbsentError(one_line(error)) from error
        if len(images) != 1:
            raise AbsentError("runs one image at a time")
        if type(net) is not ESPAN:
            raise AbsentError("only ESPAN can be exported to it")
        model = library.Net()
        model.opt.num_threads = torch.get_num_threads()
        model.opt.use_bf16_storage = kind == "bf16"
        model.opt.use_fp16_packed = model.opt.use_fp16_storage = False
        with tempfile.TemporaryDirectory() as folder:
            param, weights = ncnn_model.write(net, Path(folder))
            model.load_param(str(param))
            model.load_model(str(weights))

        def infer(x):
            extractor = model.create_extractor()
            extractor.input("in0", library.Mat(x[0]).clone())
            return np.array(extractor.extract("out0")[1])[None]

        return _runtime(kind, _planes(images), infer, images)

    return build


@cache
def _spandrels_span() -> type | str:
    """The class, or why not. Cached, as importing again after a failure may seem to work."""
    try:
        from spandrel.architectures.SPAN import SPAN as Theirs  # noqa: N811
    except Exception as error:  # it imports torchvision, which can raise anything
        return one_line(error)
    return Theirs


def spandrel(net: Network, images: np.ndarray, device: torch.device) -> Built:
    if type(net) is not SPAN:
        raise AbsentError("supports only SPAN of this family")
    network = _spandrels_span()
    if isinstance(network, str):
        raise AbsentError(network)
    theirs = network(
        num_in_ch=3, num_out_ch=3, feature_channels=net.config["channels"], upscale=net.scale
    )
    run = theirs.eval().to(device, memory_format=torch.channels_last)
    x = prepared(images, device, torch.float32)
    # It has different weights, so it is timed without comparing its result.
    return Built("fp32", _in_inference(run, x), None)


def cudnn_graph(net: Network, images: np.ndarray, device: torch.device) -> Built:
    x = prepared(images, device, torch.float16)
    try:
        with torch.inference_mode():
            run = CudnnNetwork(copy_to(net, device, torch.float16), x)
    except ImportError as error:
        raise AbsentError(one_line(error)) from error
    return _torch_built(run, "fp16", images, device)


CPU = {
    "espan": ours("bf16"),
    "espan fp32": ours("fp32"),
    "eager bf16": eager("bf16"),
    "eager fp32": eager("fp32"),
    "espan compile": ours("bf16", "compile"),
    "torch.compile bf16": eager("bf16", "default"),
    "openvino bf16": openvino("bf16", "bf16"),
    "openvino fp32": openvino("fp32", "f32"),
    "onnxruntime": onnxruntime,
    "ncnn fp32": ncnn("fp32"),
    "ncnn bf16": ncnn("bf16"),
    "spandrel": spandrel,
}
CUDA = {
    "espan": ours("fp16"),
    "espan cuda": ours("fp16", "cuda"),
    "espan triton": ours("fp16", "triton"),
    "eager fp16": eager("fp16"),
    "eager bf16": eager("bf16"),
    "eager fp32": eager("fp32"),
    "torch.compile fp16": eager("fp16", "default"),
    "torch.compile max-autotune fp16": eager("fp16", "max-autotune"),
    "cuDNN graphs fp16": cudnn_graph,
    "spandrel": spandrel,
}
