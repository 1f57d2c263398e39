"""espan: fast image upscaling with the networks ESPAN, SPAN and SPAN-F, and their training.

Imports are lazy, so that `espan --help` does not wait for torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # for type checkers; at run time `_HOME` is used
    from espan.animation.convert import upscale_animation as upscale_animation
    from espan.checkpoints.spandrel import register_spandrel as register_spandrel
    from espan.checkpoints.weights import load as load
    from espan.checkpoints.weights import save as save
    from espan.comparison import compare as compare
    from espan.errors import DeviceError as DeviceError
    from espan.errors import DeviceLostError as DeviceLostError
    from espan.errors import EspanError as EspanError
    from espan.errors import InputError as InputError
    from espan.errors import LimitError as LimitError
    from espan.errors import NonFiniteError as NonFiniteError
    from espan.errors import OutputError as OutputError
    from espan.errors import WeightsError as WeightsError
    from espan.evaluation.metrics import psnr as psnr
    from espan.evaluation.metrics import ssim as ssim
    from espan.exporting.export import export as export
    from espan.images.image16 import Image16 as Image16
    from espan.networks.espan import ESPAN as ESPAN
    from espan.networks.folding import fold as fold
    from espan.networks.network import Network as Network
    from espan.networks.span import SPAN as SPAN
    from espan.networks.spanf import SPANF as SPANF
    from espan.options import Limits as Limits
    from espan.options import UpscalerOptions as UpscalerOptions
    from espan.shortcut import upscale as upscale
    from espan.sizes import Size as Size
    from espan.upscaler import Upscaler as Upscaler
    from espan.video.convert import upscale_video as upscale_video
    from espan.video.convert import video_frames as video_frames

_HOME = {
    "ESPAN": "espan.networks.espan",
    "SPAN": "espan.networks.span",
    "SPANF": "espan.networks.spanf",
    "Network": "espan.networks.network",
    "Upscaler": "espan.upscaler",
    "UpscalerOptions": "espan.options",
    "upscale": "espan.shortcut",
    "compare": "espan.comparison",
    "upscale_animation": "espan.animation.convert",
    "upscale_video": "espan.video.convert",
    "video_frames": "espan.video.convert",
    "load": "espan.checkpoints.weights",
    "save": "espan.checkpoints.weights",
    "fold": "espan.networks.folding",
    "Limits": "espan.options",
    "Size": "espan.sizes",
    "Image16": "espan.images.image16",
    "export": "espan.exporting.export",
    "register_spandrel": "espan.checkpoints.spandrel",
    "psnr": "espan.evaluation.metrics",
    "ssim": "espan.evaluation.metrics",
    "EspanError": "espan.errors",
    "InputError": "espan.errors",
    "LimitError": "espan.errors",
    "NonFiniteError": "espan.errors",
    "OutputError": "espan.errors",
    "WeightsError": "espan.errors",
    "DeviceError": "espan.errors",
    "DeviceLostError": "espan.errors",
}

__all__ = [*_HOME]
__version__ = "0.1.0"


if not TYPE_CHECKING:  # type checkers would accept any misspelt name

    def __getattr__(name: str):
        if name not in _HOME:
            raise AttributeError(f"module 'espan' has no attribute {name!r}")
        value = getattr(import_module(_HOME[name]), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
