"""espan: fast picture upscaling with ESPAN and its family, and the training that makes it.

Names are imported on first use, so that `espan --help` does not wait for torch.
"""

from importlib import import_module

_HOME = {
    "ESPAN": "espan.networks.models",
    "SPAN": "espan.networks.models",
    "SPANF": "espan.networks.models",
    "Upscaler": "espan.upscaler",
    "upscale": "espan.upscaler",
    "compare": "espan.comparison",
    "upscale_video": "espan.video.convert",
    "video_frames": "espan.video.convert",
    "load": "espan.checkpoints.weights",
    "save": "espan.checkpoints.weights",
    "fold": "espan.networks.folding",
    "Limits": "espan.images.files",
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


def __getattr__(name: str):
    if name not in _HOME:
        raise AttributeError(f"module 'espan' has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
