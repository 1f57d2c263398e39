"""A node for ComfyUI, and the folder of nodes that imports it.

Upscales a batch image by image, so that memory holds the batch, its result and one image in
progress.
"""

import importlib
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from espan import __version__
from espan.checkpoints import weights
from espan.errors import InputError, OutputError
from espan.sizes import LARGEST, check_scale, result_size
from espan.system.atomic import whole_file
from espan.system.paths import as_path, reason
from espan.upscaler import Upscaler

_INIT = '''\
"""Nodes of espan for ComfyUI, written by `espan export --comfyui`; they need the package espan."""

from pathlib import Path

from espan.exporting.comfyui import mappings

NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = mappings(Path(__file__).parent)
'''
_SUFFIX = ".safetensors"


def write_nodes(folder: str | Path, model: str | Path | None = None) -> Path:
    """Writes a folder to put into ComfyUI's `custom_nodes`.

    Args:
        folder: the folder, created if necessary; other files in it stay.
        model: a weights file to offer in addition to the built-in networks, or None.

    Returns:
        `folder` as a path.

    Raises:
        WeightsError: `model` is not a network, or its file is damaged.
        InputError: `model` is a built-in name, which the node already has.
        OutputError: the folder cannot be written.
    """
    target = as_path(folder, "output")
    if model is not None and str(model) in weights.BUILTIN:
        raise InputError(f"model: {model} is built in, the node has it already")
    network = None if model is None else weights.load(model)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise OutputError(f"{target}: could not be created: {reason(error)}") from error
    if network is not None:
        weights.save(network, target / (Path(str(model)).stem + _SUFFIX))
    for name, text in (("requirements.txt", f"espan>={__version__}\n"), ("__init__.py", _INIT)):
        with whole_file(target / name) as temporary:
            temporary.write_text(text)
    return target


def mappings(folder: Path) -> tuple[dict[str, type], dict[str, str]]:
    """The node classes and display names that ComfyUI reads from a folder of nodes."""
    found = {path.stem: str(path) for path in sorted(folder.glob(f"*{_SUFFIX}"))}

    class EspanUpscale(Node):
        models: ClassVar[dict[str, str]] = {name: name for name in weights.BUILTIN} | found

    return {"EspanUpscale": EspanUpscale}, {"EspanUpscale": "Upscale (espan)"}


class Node:
    """Upscales a batch of images; `models` maps the names to choose from to models."""

    models: ClassVar[dict[str, str]] = {}
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "upscale"
    CATEGORY = "image/upscaling"
    DESCRIPTION = "Upscales image by image: memory holds the batch, the result and one image."

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:  # noqa: N802  ComfyUI's name
        factor = {"default": 4.0, "min": 1.0, "max": float(LARGEST), "step": 0.05}
        tile = {"default": 0, "min": 0, "max": 8192, "step": 16, "tooltip": "pixels; 0 chooses"}
        first = "espan-x4"
        names = [first, *(name for name in cls.models if name != first)]
        precision = (["auto", "fp16", "bf16", "fp32"], {"tooltip": "auto is fp16 on a GPU"})
        return {
            "required": {
                "image": ("IMAGE",),
                "model": (names,),
                "scale": ("FLOAT", factor),
                "tile": ("INT", tile),
                "precision": precision,
            }
        }

    def upscale(
        self, image: Tensor, model: str, scale: float = 4.0, tile: int = 0, precision: str = "auto"
    ) -> tuple[Tensor]:
        """Upscales ComfyUI images (N, H, W, C) in 0..1."""
        if model not in self.models:
            raise InputError(f"model: expected one of {', '.join(self.models)}, got {model!r}")
        upscaler = _upscaler(self.models[model], tile, precision)
        factor = check_scale(float(scale), upscaler.scale)
        count, height, width, channels = image.shape
        across, down = result_size(factor, (width, height))
        result = image.new_empty((count, down, across, channels), device="cpu")
        progress, stop = _bar(count), _interruption()
        for i in range(count):
            stop()
            result[i] = upscaler(image[i].permute(2, 0, 1), factor).permute(1, 2, 0)
            progress(1)
        return (result,)


@lru_cache(maxsize=2)
def _upscaler(model: str, tile: int, precision: str) -> Upscaler:
    if precision == "auto":  # ComfyUI's images are floats, but most nodes make them from 8 bits
        precision = "fp16" if torch.cuda.is_available() else "auto"
    return Upscaler(model, dtype=precision, tile=tile or "auto")  # type: ignore[arg-type]


def _bar(count: int) -> Any:
    """ComfyUI's progress callback, or a no-op outside of ComfyUI."""
    try:
        return importlib.import_module("comfy.utils").ProgressBar(count).update
    except ImportError:
        return lambda _done: None


def _interruption() -> Any:
    """A function that raises if the user has stopped ComfyUI's queue, or a no-op outside of it."""
    try:
        management = importlib.import_module("comfy.model_management")
    except ImportError:
        return lambda: None
    return management.throw_exception_if_processing_interrupted
