"""Devices and precisions: what "auto" means on this machine, and why something is refused."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from espan.errors import DeviceError
from espan.options import DEVICES, DTYPES, Device, Dtype

TORCH_DTYPES: dict[str, torch.dtype] = {name: getattr(torch, full) for name, full in DTYPES.items()}


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch's operators in the calling thread alone.

    OpenMP keeps threads for every thread that ever computed with several. Once there are more of
    them than cores they no longer spin while they wait for each other but sleep, and a network
    takes half as long again: who only makes a network, for another thread to run, shall have none.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pick_device(device: Device) -> torch.device:
    """ "auto" is the first GPU, else the CPU. DeviceError when the named one is not there."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise DeviceError(f"device: expected {', '.join(DEVICES)}, ..., got {device!r}") from error
    try:
        torch.empty(0, device=chosen)
        if chosen.type == "meta":
            raise RuntimeError("it has no data")
    # torch without CUDA raises AssertionError, ImportError for devices whose module is not there.
    except (RuntimeError, AssertionError, ImportError) as error:
        said = " ".join(str(error).split())
        if "Could not run" in said:  # a page of all operators that a backend lacks
            said = "this PyTorch has no such backend"
        raise DeviceError(f"device {str(device)!r} is not available: {said[:200]}") from error
    return chosen


def refuse_capture() -> None:
    """DeviceError where the calling thread captures a CUDA graph: nothing there can be waited for.

    Before anything is queued, so the capture goes on unharmed.
    """
    if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():
        raise DeviceError(
            "a CUDA graph is being captured: an upscaler waits for its results, which no capture "
            "can hold, and replays graphs of its own; call it outside, or capture a network of "
            "espan.load"
        )


def pick_dtype(dtype: Dtype, device: torch.device, backend: str = "auto") -> torch.dtype:
    """ "auto" is fp16 on GPUs; on CPUs bf16 where the processor has it in hardware, else fp32.

    ONNX Runtime has fp32 only. DeviceError for another name, and for "tf32" off a GPU.
    """
    if dtype == "auto" and backend == "onnx":
        return torch.float32
    if dtype == "auto":
        if device.type != "cpu":
            return torch.float16
        return torch.bfloat16 if cpu_has_bf16() else torch.float32
    chosen = TORCH_DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if chosen is None or chosen not in TORCH_DTYPES.values():
        raise DeviceError(f"dtype: expected auto, {', '.join(DTYPES)}, got {dtype!r}")
    if str(dtype) == "tf32" and device.type != "cuda":
        raise DeviceError(f"dtype 'tf32': CUDA devices have it, the device is {device}")
    return chosen


def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware (emulated, it is slower than fp32)."""
    if hasattr(torch.cpu, "get_capabilities"):  # torch >= 2.10
        able = torch.cpu.get_capabilities()
        return any(able.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16"))
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(supported and supported())
