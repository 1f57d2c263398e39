"""Options of an upscaler, their possible values, and limits for image files.

Imports neither torch nor Pillow, so that the command line can list the values without delay.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, get_args

from espan.errors import DeviceError, EspanError, InputError, short

if TYPE_CHECKING:
    import torch

# What devices may be called; further GPUs as "cuda:2" and so on.
DEVICES = ("auto", "cpu", "cuda", "cuda:1", "mps", "xpu")

BackendName: TypeAlias = Literal["auto", "cuda", "triton", "eager", "compile", "openvino", "onnx"]
# "auto" chooses the fastest of our own backends.
BACKENDS: tuple[BackendName, ...] = get_args(BackendName)
# Backends of other projects, on the CPU.
RUNTIMES = ("openvino", "onnx")

DtypeName: TypeAlias = Literal[
    "auto", "fp32", "tf32", "fp16", "bf16", "float32", "float16", "bfloat16"
]
# PyTorch's names of our dtypes. "tf32" is float32 with convolutions in TF32.
DTYPES = {"fp32": "float32", "tf32": "float32", "fp16": "float16", "bf16": "bfloat16"}
# Alternative names of our dtypes.
DTYPE_ALIASES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
# Backends that can use PyTorch's convolutions, and therefore TF32.
WITH_TF32 = ("auto", "eager", "compile")

NonFinite: TypeAlias = Literal["error", "replace"]

Device: TypeAlias = "str | torch.device"
Dtype: TypeAlias = "DtypeName | torch.dtype"
Tile: TypeAlias = int | tuple[int, int] | Literal["auto"] | None

# Called with (input pixels done, input pixels in total).
Progress: TypeAlias = Callable[[int, int], None]


@dataclass(frozen=True)
class Limits:
    """Limits for image files.

    Args:
        max_input: maximum pixels of an image, checked on the file's header. The default is the size
            above which Pillow warns.
        max_output: maximum pixels of its result.
        allow_truncated: True reads as much as possible of a damaged file and logs a warning; False
            raises an error.

    Raises:
        InputError: a limit is not a whole number of 1 or more, or `allow_truncated` not a bool.
    """

    max_input: int = 89_478_485
    max_output: int = 1_500_000_000
    allow_truncated: bool = False

    def __post_init__(self) -> None:
        for name in ("max_input", "max_output"):
            most = getattr(self, name)
            if type(most) is not int or most < 1:
                raise InputError(f"{name}: expected a whole number of 1 or more, got {short(most)}")
        if type(self.allow_truncated) is not bool:
            got = short(self.allow_truncated)
            raise InputError(f"allow_truncated: expected True or False, got {got}")


LIMITS = Limits()


@dataclass(frozen=True)
class UpscalerOptions:
    """The options of an `Upscaler`, hashable and comparable.

    Args:
        device: "auto" (the first CUDA GPU, else the CPU), "cpu", "cuda", "cuda:1", ...; "mps"
            (Apple) or "xpu" (Intel), with PyTorch's operators; or a `torch.device`.
        dtype: "auto", "fp32", "fp16", "bf16" or their `torch.dtype`; on a GPU also "tf32", which is
            fp32 with convolutions in TF32. "auto" is fp16 on GPUs, bf16 on CPUs with bf16 hardware,
            or else fp32, and computes images with more than 8 bits in fp32.
        backend: "auto" (the fastest of "cuda", "triton" and "eager" on this machine), or a specific
            one: "cuda" and "triton" are this package's kernels, "eager" is PyTorch's own operators,
            "compile" is `torch.compile`; "openvino" and "onnx" compute on the CPU.
        tile: "auto", None (no tiling), or a side or (height, width) in input pixels, without halo.
            Does not affect the result in fp32.
        nonfinite: "error" raises for images with NaN or infinite values; "replace" replaces NaN
            and -inf by 0, and inf by 1.
        limits: limits for image files.

    Raises:
        DeviceError: `device`, `dtype` or `backend` has another value.
        InputError: `tile`, `nonfinite` or `limits` has another value.
    """

    device: Device = "auto"
    dtype: Dtype = "auto"
    backend: BackendName = "auto"
    tile: Tile = "auto"
    nonfinite: NonFinite = "error"
    limits: Limits = LIMITS

    def __post_init__(self) -> None:
        _one_of("backend", self.backend, BACKENDS, DeviceError)
        _one_of("nonfinite", self.nonfinite, get_args(NonFinite), InputError)
        for name in ("device", "dtype"):
            value = getattr(self, name)
            if not isinstance(value, str) and not _is_torchs(value, name):
                got = short(value)
                raise DeviceError(f"{name}: expected a name or a torch.{name}, got {got}")
        if isinstance(self.dtype, str):
            object.__setattr__(self, "dtype", DTYPE_ALIASES.get(self.dtype, self.dtype))
        if not isinstance(self.limits, Limits):
            raise InputError(f"limits: expected espan.Limits, got {short(self.limits)}")
        object.__setattr__(self, "tile", _check_tile(self.tile))

    @property
    def sides(self) -> tuple[int, int] | Literal["auto"] | None:
        """`tile` with an int as a pair (height, width)."""
        assert not isinstance(self.tile, int)
        return self.tile


class UpscalerKeywords(TypedDict, total=False):
    """The fields of `UpscalerOptions` as keyword arguments, for the signatures of overloads."""

    device: Device
    dtype: Dtype
    backend: BackendName
    tile: Tile
    nonfinite: NonFinite
    limits: Limits


class EncodedKeywords(TypedDict, total=False):
    """Keywords for encoded images written to bytes or open files."""

    format: str | None
    progress: Progress | None


class CallKeywords(TypedDict, total=False):
    """Keywords of calls of an `Upscaler` besides scale and output."""

    progress: Progress | None


def _one_of(name: str, value: Any, known: Sequence[str], error: type[EspanError]) -> None:
    if not isinstance(value, str) or value not in known:
        expected = " or ".join(known) if len(known) == 2 else f"one of {', '.join(known)}"
        raise error(f"{name}: expected {expected}, got {short(value)}")


def _is_torchs(value: Any, kind: str) -> bool:
    import torch  # a caller with a torch value has already imported it

    return isinstance(value, getattr(torch, kind))


def _check_tile(tile: Any) -> Any:
    """Validates `tile`; returns "auto", None or a pair (height, width)."""
    if tile is None or (isinstance(tile, str) and tile == "auto"):
        return tile
    sides = (tile, tile) if isinstance(tile, int) else tile
    good = isinstance(sides, tuple | list) and len(sides) == 2
    if not good or not all(type(side) is int and side >= 1 for side in sides):
        raise InputError(
            f'tile: expected "auto", None, an int or (height, width), got {short(tile)}'
        )
    return tuple(sides)
