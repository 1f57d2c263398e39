"""espan: fast picture upscaling with ESPAN and its family, and the training that makes it.

Names are imported on first use, so that `espan --help` does not wait for torch.
"""

from importlib import import_module

_HOME = {
    "ESPAN": "espan.model",
    "SPAN": "espan.model",
    "SPANF": "espan.model",
    "Upscaler": "espan.upscaler",
    "upscale": "espan.upscaler",
    "compare": "espan.comparison",
    "upscale_video": "espan.video.convert",
    "video_frames": "espan.video.convert",
    "load": "espan.weights",
    "save": "espan.weights",
    "fold": "espan.folding",
    "Limits": "espan.files",
    "Image16": "espan.image16",
    "export": "espan.exporting",
    "register_spandrel": "espan.spandrel",
    "psnr": "espan.metrics",
    "ssim": "espan.metrics",
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


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'espan' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
