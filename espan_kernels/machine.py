"""Which kernels this machine can run: Triton, CUDA, the GPU. Checks return a reason or None."""

import importlib.util
import os

import torch
from torch import Tensor

from espan_kernels import cpu, native

HAS_TRITON = importlib.util.find_spec("triton") is not None
# Triton decides at import whether kernels run on a GPU or in its interpreter.
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes")
# The first version that supports tuples of pointers and constants as kernel arguments.
MINIMUM_TRITON = (3, 4)
MINIMUM_CAPABILITY = (8, 0)
# The compute capability with wgmma, and its maximum shared memory per block in bytes.
WGMMA_CAPABILITY, WGMMA_SHARED = (9, 0), 227 << 10
KERNEL_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def capability(index: int | None) -> tuple[int, int]:
    """Compute capability of CUDA device `index`."""
    properties = torch.cuda.get_device_properties(index)
    return properties.major, properties.minor


def capability_of(x: Tensor) -> tuple[int, int] | None:
    """Compute capability of the GPU that holds x; None if x is not on a GPU."""
    return capability(x.device.index) if x.is_cuda else None


def tensors(args) -> list[Tensor]:
    """All tensors in `args`, including those in lists."""
    found = []
    for arg in args:
        if isinstance(arg, Tensor):
            found.append(arg)
        elif isinstance(arg, (list, tuple)):  # torch 2.6 does not compile `list | tuple`
            found.extend(item for item in arg if isinstance(item, Tensor))
    return found


def first(args) -> Tensor:
    """The first tensor, bare or in a list: it determines an op's device and memory format."""
    return args[0] if isinstance(args[0], Tensor) else args[0][0]


def no_triton() -> str | None:
    """Why Triton is unusable, or None."""
    if not HAS_TRITON:
        return "Triton is not installed"
    import triton  # lazy: importing it takes longer than the rest of this package

    if tuple(map(int, triton.__version__.split(".")[:2])) >= MINIMUM_TRITON:
        return None
    least = ".".join(map(str, MINIMUM_TRITON))
    return f"needs Triton {least} or later, found {triton.__version__}"


def needs_triton(*args) -> str | None:
    """Why Triton cannot run on these arguments, or None."""
    if not HAS_TRITON:
        return no_triton()
    device = first(args).device
    if device.type != ("cpu" if INTERPRETED else "cuda"):
        if INTERPRETED:
            return f"TRITON_INTERPRET=1 runs kernels on the cpu, the tensors are on {device}"
        return f"Triton kernels need a CUDA device, the tensors are on {device}"
    return no_triton() or (_too_old(device) if device.type == "cuda" else None)


def needs_cuda(*args) -> str | None:
    """Why CUDA kernels cannot run on these arguments, or None."""
    if native.REASON is not None:
        return native.REASON
    device = first(args).device
    if device.type != native.DEVICE:
        return f"CUDA kernels need a {native.DEVICE} device, the tensors are on {device}"
    return _too_old(device) if device.type == "cuda" else None


def _too_old(device: torch.device) -> str | None:
    if capability(device.index) < MINIMUM_CAPABILITY:
        have = ".".join(map(str, capability(device.index)))
        return f"needs compute capability 8.0 or higher, {device} has {have}"
    return None


def needs_wgmma(*args) -> str | None:
    """Why wgmma kernels, whose sm_90a code runs on compute capability 9.0 only, cannot run."""
    if (reason := needs_cuda(*args)) is not None:
        return reason
    if not native.MODULE.WGMMA:
        return "CUDA kernels were built without code for compute capability 9.0"
    device = first(args).device
    if device.type != "cuda":
        return None
    if capability(device.index) != WGMMA_CAPABILITY:
        have = ".".join(map(str, capability(device.index)))
        return f"needs compute capability 9.0, {device} has {have}"
    properties = torch.cuda.get_device_properties(device)
    # Older versions of torch lack this property.
    shared = getattr(properties, "shared_memory_per_block_optin", WGMMA_SHARED)
    if shared < WGMMA_SHARED:
        return f"needs {WGMMA_SHARED} bytes of shared memory in a block, {device} has {shared}"
    return None


def kernel_dtype(*args) -> str | None:
    """Kernels support three floating dtypes; eager supports all."""
    for x in tensors(args):
        if x.is_floating_point() and x.dtype not in KERNEL_DTYPES:
            return f"kernels need float16, bfloat16 or float32, got {x.dtype}"
    return None


def cuda_conv_limits(*args) -> str | None:
    """The CUDA convolutions support float16 and 17 to 64 channels, the same number in and out."""
    for x in tensors(args):
        if x.dtype != torch.float16:
            return f"CUDA convolutions need float16, got {x.dtype}"
    # Images and weights have input channels in dimension 1, biases output channels in dimension 0.
    counts = sorted({x.shape[1] if x.dim() == 4 else x.shape[0] for x in tensors(args)})
    if len(counts) > 1 or not 16 < counts[0] <= 64:
        found = " and ".join(map(str, counts))
        return f"CUDA convolutions need 17 to 64 channels, as many out as in, got {found}"
    return None


def wgmma_channels(*args) -> str | None:
    """The wgmma convolutions support 4, 6, 7 or 8 groups of 8 channels."""
    channels = first(args).shape[1]
    if -(-channels // 8) not in (4, 6, 7, 8):
        return f"wgmma convolutions need 25 to 32 or 41 to 64 channels, got {channels}"
    return None


def fp16_accumulation_pays(device: torch.device) -> bool:
    """Whether CUDA convolutions on `device` are faster with fp16 accumulation of 96 products.

    True on GeForce of compute capability 8.6, 8.9 and 12, whose tensor cores accumulate float32 at
    half rate. ESPAN_HALF_SUMS=0 or 1, read at each call, overrides this for every device.
    """
    setting = os.environ.get("ESPAN_HALF_SUMS", "auto")
    if setting not in ("auto", "0", "1"):
        raise ValueError(f"ESPAN_HALF_SUMS: expected auto, 0 or 1, got {setting!r}")
    if setting != "auto":
        return setting == "1"
    if device.type != "cuda" or "GeForce" not in torch.cuda.get_device_name(device):
        return False
    major, minor = capability(device.index)
    return (major, minor) in ((8, 6), (8, 9)) or major == 12


def forward_only(*args) -> str | None:
    """Kernels without a backward pass cannot run where a gradient is needed."""
    if torch.is_grad_enabled() and any(x.requires_grad for x in tensors(args)):
        return "forward only, and a gradient is needed"
    return None


# Checks of the wgmma convolutions of feature maps.
WGMMA_REFUSALS = (needs_wgmma, cuda_conv_limits, wgmma_channels, forward_only)


def describe() -> str:
    """Versions of torch and Triton, the GPUs, and whether our kernels are built, one per line."""
    lines = [f"torch {torch.__version__}"]
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            have = ".".join(map(str, capability(index)))
            lines.append(f"GPU {index}: {torch.cuda.get_device_name(index)}, capability {have}")
    else:
        lines.append("GPU: none that torch can use")
    if HAS_TRITON:
        import triton

        how = ", interpreted on the cpu (TRITON_INTERPRET)" if INTERPRETED else ""
        lines.append(f"triton {triton.__version__}{how}")
    else:
        lines.append("triton: not installed")
    lines.append(f"CUDA kernels: {native.REASON or 'built'}")
    units = ", ".join(f"{dtype}: {cpu.unit(dtype)}" for dtype in cpu.UNITS)
    lines.append(f"CPU kernels: {cpu.REASON or f'built, {units}'}")
    return "\n".join(lines)
