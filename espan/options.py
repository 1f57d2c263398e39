"""How an upscaler computes: its options, the names they may have, and the limits of image files.

Neither torch nor Pillow is imported, so the command line can list the names at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypedDict, get_args

from espan.errors import DeviceError, EspanError, InputError, short

if TYPE_CHECKING:
    import torch

BackendName: TypeAlias = Literal["auto", "cuda", "triton", "eager", "compile", "openvino", "onnx"]
# "auto" is the fastest of our own; the others insist on one.
BACKENDS: tuple[BackendName, ...] = get_args(BackendName)
# Backends that are other programs, which compute on the CPU.
RUNTIMES = ("openvino", "onnx")

DtypeName: TypeAlias = Literal[
    "auto", "fp32", "tf32", "fp16", "bf16", "float32", "float16", "bfloat16"
]
# PyTorch's names for ours. "tf32" is float32 whose convolutions may be multiplied in TF32.
DTYPES = {"fp32": "float32", "tf32": "float32", "fp16": "float16", "bf16": "bfloat16"}
# What else people write for ours.
DTYPE_ALIASES = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16"}
# Backends that go by PyTorch's own convolutions, so that "tf32" has a meaning for them.
WITH_TF32 = ("auto", "eager", "compile")

NonFinite: TypeAlias = Literal["error", "replace"]

Device: TypeAlias = "str | torch.device"
Dtype: TypeAlias = "DtypeName | torch.dtype"
Tile: TypeAlias = int | tuple[int, int] | Literal["auto"] | None

# Called with the input pixels that are done and those there are.
Progress: TypeAlias = Callable[[int, int], None]


@dataclass(frozen=True)
class Limits:
    """Which image files are read.

    Args:
        max_input: most pixels of an image, known from the file's header. The default is the size
            at which Pillow begins to warn.
        max_output: most pixels of its result.
        allow_truncated: True reads a damaged file as far as it goes and logs a warning that names
            it; False refuses it.

    Raises:
        InputError: a limit is no whole number of 1 or more, or `allow_truncated` no bool.
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
    """How an `Upscaler` computes; two equal options compute the same.

    Args:
        device: "auto" (the first CUDA GPU, else the CPU), "cpu", "cuda", "cuda:1", ...; "mps"
            (Apple) or "xpu" (Intel), by PyTorch's operators; or a `torch.device`.
        dtype: "auto", "fp32", "fp16", "bf16" or a `torch.dtype` of these; on a GPU "tf32" too,
            which is fp32 whose convolutions may be multiplied in TF32. "auto" is fp16 on GPUs, bf16
            on CPUs that have it in hardware and else fp32; images of more than 8 bits are then
            computed in fp32.
        backend: "auto" (the fastest of "cuda", "triton" and "eager" here), or one to insist on:
            "cuda" and "triton" are this package's kernels, "eager" is PyTorch's own operators,
            "compile" is `torch.compile`; "openvino" and "onnx" compute on the CPU.
        tile: "auto", None (never cut the image), or a side or (height, width) in input pixels,
            the halo not counted. In fp32 the result does not depend on it.
        nonfinite: "error" refuses an image with NaN or infinite values; "replace" takes 0 for NaN
            and -inf, and 1 for inf.
        limits: which image files are read.

    Raises:
        DeviceError: `device`, `dtype` or `backend` is nothing of the above.
        InputError: `tile`, `nonfinite` or `limits` is not as described.
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
        """`tile`, of which an int has become a pair (height, width)."""
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
    """What it takes for encoded images that are written to bytes or to open files."""

    format: str | None
    progress: Progress | None


class CallKeywords(TypedDict, total=False):
    """What the call of an `Upscaler` takes besides the image, the scale and the output."""

    progress: Progress | None


def _one_of(name: str, value: Any, known: Sequence[str], error: type[EspanError]) -> None:
    if not isinstance(value, str) or value not in known:
        expected = " or ".join(known) if len(known) == 2 else f"one of {', '.join(known)}"
        raise error(f"{name}: expected {expected}, got {short(value)}")


def _is_torchs(value: Any, kind: str) -> bool:
    import torch  # whoever has such a value has imported it already

    return isinstance(value, getattr(torch, kind))


def _check_tile(tile: Any) -> Any:
    """`tile` as one of "auto", None and a pair (height, width)."""
    if tile is None or (isinstance(tile, str) and tile == "auto"):
        return tile
    sides = (tile, tile) if isinstance(tile, int) else tile
    good = isinstance(sides, tuple | list) and len(sides) == 2
    if not good or not all(type(side) is int and side >= 1 for side in sides):
        raise InputError(
            f'tile: expected "auto", None, an int or (height, width), got {short(tile)}'
        )
    return tuple(sides)
