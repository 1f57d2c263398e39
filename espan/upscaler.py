"""`Upscaler`: a network held ready for images of every kind."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, overload

from numpy.typing import NDArray
from torch import nn

from espan.checkpoints.weights import Model, load, model_for
from espan.errors import InputError
from espan.execution.calls import Call
from espan.execution.encoded import is_encoded, upscale_encoded
from espan.execution.runner import Runner
from espan.images import adapt
from espan.images.adapt import (
    AnyImage,
    Each,
    File,
    FromFile,
    Given,
    One,
    PixelType,
    Written,
)
from espan.images.files import Data
from espan.networks.network import Network
from espan.options import (
    LIMITS,
    BackendName,
    CallKeywords,
    Device,
    Dtype,
    EncodedKeywords,
    Limits,
    NonFinite,
    Progress,
    Tile,
    UpscalerOptions,
)
from espan.sizes import Scale, check_scale
from espan.system import shutdown
from espan.system.devices import refuse_capture

if TYPE_CHECKING:
    from typing_extensions import Unpack


class Upscaler:
    """A network held ready to upscale images; call it, from as many threads as you like.

    Args:
        model: a built-in name, a weights file, or a network; None is the built-in one of scale 4.
        device: "auto" (the first CUDA GPU, else the CPU), "cpu", "cuda", "cuda:1", ...; "mps" or
            "xpu" by PyTorch's operators.
        dtype: "auto", "fp32", "fp16", "bf16" or, on a GPU, "tf32": fp32 whose convolutions may be
            multiplied in TF32, which "fp32" never does; "auto" keeps fp32 for images of more than
            8 bits.
        backend: "auto", or one to insist on: "cuda" or "triton" (kernels of `espan_kernels`),
            "eager" (PyTorch's own operators), "compile" (`torch.compile`: half a minute before the
            first image, faster ones after it), or on a CPU "openvino" or "onnx" (extras).
        tile: "auto", None (never cut), an int or (height, width) in input pixels, halo not
            counted. In fp32 the result does not depend on it; in half precision its rounding does.
        nonfinite: "error" refuses an image with NaN or infinite values; "replace" takes 0 for NaN
            and -inf, and 1 for inf.
        limits: which image files are read.

    Attributes:
        network: the network, folded or not, as it was given or read.
        options: the `UpscalerOptions`, with the device that "auto" stands for.
        scale: how many times larger the network makes an image: 2, 3 or 4.
        radius: input pixels to each side that an output pixel depends on.
        device: the `torch.device` that computes.
        dtype: the `torch.dtype` that images of 8 bits are computed in.
        tile: "auto", None or (height, width).
        limits: which image files are read.

    Raises:
        WeightsError: `model` names no network, or its file is damaged.
        InputError: `model`, `tile` or `nonfinite` is of the wrong kind.
        DeviceError: this machine lacks the device, dtype or backend.
    """

    def __init__(
        self,
        model: Model = None,
        *,
        device: Device = "auto",
        dtype: Dtype = "auto",
        backend: BackendName = "auto",
        tile: Tile = "auto",
        nonfinite: NonFinite = "error",
        limits: Limits = LIMITS,
    ):
        options = UpscalerOptions(device, dtype, backend, tile, nonfinite, limits)
        if isinstance(model, nn.Module) and not isinstance(model, Network):
            raise InputError(f"model: expected a network of espan, got {type(model).__name__}")
        named = model_for(4) if model is None else model
        self.network = named if isinstance(named, Network) else load(named)
        shutdown.prepare_for_forks()
        self._runner = Runner(self.network, options)
        self.device, self.dtype = self._runner.device, self._runner.dtype
        self.options = replace(options, device=str(self.device))
        self.tile, self.limits = options.sides, limits
        self.scale, self.radius = self.network.scale, self.network.radius

    @classmethod
    def from_options(cls, model: Model, options: UpscalerOptions) -> "Upscaler":
        """The upscaler of a network by options that are held in one object.

        Args:
            model: as for `Upscaler`.
            options: its other arguments.

        Returns:
            The same as `Upscaler(model, device=options.device, ...)`.

        Raises:
            EspanError: as `Upscaler` does.
        """
        if not isinstance(options, UpscalerOptions):
            got = type(options).__name__
            raise InputError(f"options: expected espan.UpscalerOptions, got {got}")
        return cls(model, **vars(options))

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process makes its own, of the same network."""
        return type(self).from_options, (self.network, self.options)

    @property
    def redone(self) -> int:
        """Tiles so far that overflowed in half precision and were computed again in float32."""
        return self._runner.redone

    @property
    def redone_here(self) -> int:
        """Tiles computed again in float32 so far by calls of the calling thread."""
        return self._runner.redone_here

    def explain(self) -> str:
        """What computes images of 8 bits, step by step, and why nothing faster does.

        Returns:
            Lines of text: one per step of the network where kernels run it.
        """
        return self._runner.explain()

    # The result is of the same kind as the image. A str and a tuple are sequences too, which their
    # own overloads take first; a list goes by Sequence, as one of ImageFiles is no list of Images.
    @overload
    def __call__(self, image: One, scale: Scale = None, **more: "Unpack[CallKeywords]") -> One: ...
    @overload
    def __call__(
        self, image: NDArray[PixelType], scale: Scale = None, **more: "Unpack[CallKeywords]"
    ) -> NDArray[PixelType]: ...
    @overload
    def __call__(
        self,
        image: File,
        scale: Scale = None,
        *,
        output: None = None,
        **more: "Unpack[CallKeywords]",
    ) -> FromFile: ...
    @overload
    def __call__(
        self,
        image: File | Data,
        scale: Scale = None,
        *,
        output: File,
        **more: "Unpack[CallKeywords]",
    ) -> Path: ...
    @overload
    def __call__(
        self,
        image: Data,
        scale: Scale = None,
        *,
        output: None = None,
        **more: "Unpack[EncodedKeywords]",
    ) -> bytes: ...
    @overload
    def __call__(
        self,
        image: File | Data,
        scale: Scale = None,
        *,
        output: Written,
        **more: "Unpack[EncodedKeywords]",
    ) -> Written: ...
    @overload
    def __call__(
        self, image: tuple[Each, ...], scale: Scale = None, **more: "Unpack[CallKeywords]"
    ) -> tuple[Each, ...]: ...
    @overload
    def __call__(
        self, image: tuple[File, ...], scale: Scale = None, **more: "Unpack[CallKeywords]"
    ) -> tuple[FromFile, ...]: ...
    @overload
    def __call__(
        self, image: tuple[Given, ...], scale: Scale = None, **more: "Unpack[CallKeywords]"
    ) -> tuple[AnyImage, ...]: ...
    @overload
    def __call__(
        self, image: Sequence[Each], scale: Scale = None, **more: "Unpack[CallKeywords]"
    ) -> list[Each]: ...
    @overload
    def __call__(
        self, image: Sequence[File], scale: Scale = None, **more: "Unpack[CallKeywords]"
    ) -> list[FromFile]: ...
    @overload
    def __call__(
        self, image: Sequence[Given], scale: Scale = None, **more: "Unpack[CallKeywords]"
    ) -> list[AnyImage]: ...
    def __call__(
        self,
        image: Any,
        scale: Scale = None,
        *,
        output: File | BinaryIO | None = None,
        format: str | None = None,
        progress: Progress | None = None,
    ) -> Any:
        """`image` made `scale` times larger, as an image of the same kind.

        Args:
            image: a PIL image of mode 1, L, LA, P, RGB, RGBA or I;16; an `Image16`; an array
                (H, W) or (H, W, C), or a tensor (C, H, W) or (N, C, H, W) on any device, C = 1
                grey, 2 grey and alpha, 3 RGB, 4 RGBA, of uint8, uint16 or float in 0..1; the path
                of a file; its bytes, or an open binary file; or a list or tuple of these.
            scale: a number from 1 to 64, or a `Size`; None is the network's own. What lies between
                the network's powers is filtered down, what is larger goes through it several times.
            output: for a path, bytes or an open file: the path or open binary file to write to.
            format: of bytes and open files to write: png, jpg, ...; None keeps the input's.
            progress: called as `progress(done, total)` after every tile, in pixels that enter the
                network, of the image or batch under way.

        Returns:
            The kind, mode, dtype, layout, device and range of `image`, round(H * scale) by
            round(W * scale) pixels, or as large as a `Size` has it; float64 is computed in float32.
            A path gives a PIL image, or an `Image16` for colour of more than 8 bits; bytes and
            open files give bytes in the same format. With `output` it gives that.

        Raises:
            InputError: `image`, `scale` or `output` cannot be used; LimitError where the image is
                over `limits` or memory is short, NonFiniteError for NaN and infinite values.
            OutputError: `output` cannot be written.
            DeviceError: not even the smallest tile fits into the device's memory, or the call is
                made while a CUDA graph is captured.
            DeviceLostError: a GPU failed; only another process can use it again.
        """
        factor = check_scale(scale, self.scale)
        if progress is not None and not callable(progress):
            raise InputError(f"progress: expected a function, got {type(progress).__name__}")
        refuse_capture()
        adapt.check_nesting(image)
        if is_encoded(image, output, format):
            return upscale_encoded(self, image, factor, self.limits, output, format, progress)
        return Call(self._runner, factor, self.limits, self.options.nonfinite, progress).of(image)
