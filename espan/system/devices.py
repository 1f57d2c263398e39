"""Selects devices and dtypes: resolves "auto" on this machine, and rejects unavailable ones."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from espan.errors import DeviceError
from espan.options import DEVICES, DTYPES, Device, Dtype
from espan_kernels import cpu

TORCH_DTYPES: dict[str, torch.dtype] = {name: getattr(torch, full) for name, full in DTYPES.items()}


@contextmanager
def one_thread() -> Iterator[None]:
    """Runs PyTorch operators in the calling thread only.

    OpenMP keeps a pool of workers for each thread that ran a parallel operator. With more workers
    than cores, they sleep instead of spinning at barriers, which makes a network 1.5 times as slow.
    Threads that only construct a network must not spawn OpenMP workers.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pick_device(device: Device) -> torch.device:
    """Resolves a device; "auto" is the first GPU or else the CPU.

    Raises DeviceError if the device is not available.
    """
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
    # torch without CUDA raises AssertionError; ImportError if the module of a device is missing.
    except (RuntimeError, AssertionError, ImportError) as error:
        text = " ".join(str(error).split())
        if "Could not run" in text:  # torch lists all missing operators
            text = "this PyTorch has no such backend"
        raise DeviceError(f"device {str(device)!r} is not available: {text[:200]}") from error
    return chosen


def refuse_capture() -> None:
    """Raises DeviceError if the calling thread is capturing a CUDA graph, where it cannot wait.

    Nothing has been queued yet, so the capture stays valid.
    """
    if torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing():
        raise DeviceError(
            "a CUDA graph is being captured: an upscaler synchronises, which a capture cannot "
            "record, and replays its own graphs; call it outside, or capture a network of "
            "espan.load"
        )


def pick_dtype(dtype: Dtype, device: torch.device, backend: str = "auto") -> torch.dtype:
    """Resolves a dtype; "auto" is fp16 on GPUs, bf16 on CPUs that multiply it faster, or else fp32.

    What is faster depends on the backend. ONNX Runtime supports fp32 only. Raises DeviceError for
    unknown names, and for "tf32" on a CPU.
    """
    if dtype == "auto" and backend == "onnx":
        return torch.float32
    if dtype == "auto":
        if device.type != "cpu":
            return torch.float16
        if backend == "auto" and (faster := cpu.faster_dtype()):
            return faster
        return torch.bfloat16 if cpu_has_bf16() else torch.float32
    chosen = TORCH_DTYPES.get(dtype) if isinstance(dtype, str) else dtype
    if chosen is None or chosen not in TORCH_DTYPES.values():
        raise DeviceError(f"dtype: expected auto, {', '.join(DTYPES)}, got {dtype!r}")
    if str(dtype) == "tf32" and device.type != "cuda":
        raise DeviceError(f"dtype 'tf32': needs a CUDA device, got {device}")
    return chosen


def cpu_has_bf16() -> bool:
    """Whether this processor multiplies bfloat16 in hardware (emulated, it is slower than fp32)."""
    if hasattr(torch.cpu, "get_capabilities"):  # torch >= 2.10
        able = torch.cpu.get_capabilities()
        return any(able.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16"))
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(supported and supported())
