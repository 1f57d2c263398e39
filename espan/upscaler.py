"""`Upscaler`: a loaded network that upscales images of all kinds."""

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
    """A loaded network that upscales images when called. Thread-safe.

    Args:
        model: a built-in name, a weights file, or a network; None is the built-in x4 network.
        device: "auto" (the first CUDA GPU, else the CPU), "cpu", "cuda", "cuda:1", ...; "mps" or
            "xpu" with PyTorch's operators.
        dtype: "auto", "fp32", "fp16", "bf16" or, on a GPU, "tf32": fp32 with convolutions in TF32,
            which "fp32" never uses. "auto" computes images with more than 8 bits in fp32.
        backend: "auto", or a specific one: "cuda" or "triton" (kernels of `espan_kernels`),
            "eager" (PyTorch's own operators), "compile" (`torch.compile`: half a minute before the
            first image, faster afterwards), or on a CPU "openvino" or "onnx" (extras).
        tile: "auto", None (no tiling), an int or (height, width) in input pixels, without halo.
            Does not affect the result in fp32; affects its rounding in half precision.
        nonfinite: "error" raises for images with NaN or infinite values; "replace" replaces NaN
            and -inf by 0, and inf by 1.
        limits: limits for image files.

    Attributes:
        network: the network as passed or loaded, folded or not.
        options: the `UpscalerOptions`, with "auto" resolved to a device.
        scale: upscaling factor of the network: 2, 3 or 4.
        radius: radius of the receptive field in input pixels.
        device: the `torch.device` of the network.
        dtype: the `torch.dtype` in which 8-bit images are computed.
        tile: "auto", None or (height, width).
        limits: limits for image files.

    Raises:
        WeightsError: `model` is not a network, or its file is damaged.
        InputError: `model`, `tile` or `nonfinite` is invalid.
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
        chosen = model_for(4) if model is None else model
        self.network = chosen if isinstance(chosen, Network) else load(chosen)
        shutdown.prepare_for_forks()
        self._runner = Runner(self.network, options)
        self.device, self.dtype = self._runner.device, self._runner.dtype
        self.options = replace(options, device=str(self.device))
        self.tile, self.limits = options.sides, limits
        self.scale, self.radius = self.network.scale, self.network.radius

    @classmethod
    def from_options(cls, model: Model, options: UpscalerOptions) -> "Upscaler":
        """Creates an upscaler from an options object.

        Args:
            model: as for `Upscaler`.
            options: its other arguments.

        Returns:
            The same as `Upscaler(model, device=options.device, ...)`.

        Raises:
            EspanError: as for `Upscaler`.
        """
        if not isinstance(options, UpscalerOptions):
            got = type(options).__name__
            raise InputError(f"options: expected espan.UpscalerOptions, got {got}")
        return cls(model, **vars(options))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles network and options: another process constructs its own upscaler."""
        return type(self).from_options, (self.network, self.options)

    @property
    def redone(self) -> int:
        """Number of tiles that overflowed in half precision and were computed again in float32."""
        return self._runner.redone

    @property
    def redone_here(self) -> int:
        """Number of tiles computed again in float32 in calls by the calling thread."""
        return self._runner.redone_here

    def explain(self) -> str:
        """Describes how 8-bit images are computed, and why nothing faster is used.

        Returns:
            Lines of text, one per step of the network if kernels run it.
        """
        return self._runner.explain()

    # The result has the kind of the image. str and tuple are sequences too, but their overloads
    # come first. Lists match Sequence, since list[ImageFile] is not a list[Image] (invariance).
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
        """Upscales `image` by `scale`; returns an image of the same kind.

        Args:
            image: a PIL image of mode 1, L, LA, P, RGB, RGBA or I;16; an `Image16`; an array
                (H, W) or (H, W, C), or a tensor (C, H, W) or (N, C, H, W) on any device, C = 1
                grey, 2 grey and alpha, 3 RGB, 4 RGBA, of uint8, uint16 or float in 0..1; the path
                of a file; its bytes, or an open binary file; or a list or tuple of these.
            scale: a number from 1 to 64, or a `Size`; None is the network's own scale. Scales
                between powers of the network's scale are filtered down from the next power.
            output: for a path, bytes or an open file: the path or open binary file to write to.
            format: format to write for bytes and open files: png, jpg, ...; None keeps the input's.
            progress: called as `progress(done, total)` after each tile, in input pixels of the
                network, per image or batch.

        Returns:
            An image with the kind, mode, dtype, layout, device and range of `image`, and
            round(H * scale) by round(W * scale) pixels, or the size from a `Size`; float64 is
            computed in float32. A path gives a PIL image, or an `Image16` for colour with more than
            8 bits; bytes and open files give bytes in the same format. With `output`, returns that.

        Raises:
            InputError: `image`, `scale` or `output` is invalid; LimitError if the image exceeds
                `limits` or memory is short, NonFiniteError for NaN and infinite values.
            OutputError: `output` cannot be written.
            DeviceError: the smallest tile does not fit into the device's memory, or a CUDA graph
                is being captured.
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
