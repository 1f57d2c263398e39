"""A node for ComfyUI: a folder of nodes that imports this file, and the node itself.

A batch is upscaled image by image into one result, so that memory holds input, output and one
image, however many there are.
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

_FACE = '''\
"""Nodes of espan for ComfyUI, written by `espan export --comfyui`; they need the package espan."""

from pathlib import Path

from espan.exporting.comfyui import mappings

NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS = mappings(Path(__file__).parent)
'''
_SUFFIX = ".safetensors"


def write_nodes(folder: str | Path, model: str | Path | None = None) -> Path:
    """Writes a folder to put into ComfyUI's `custom_nodes`.

    Args:
        folder: where to; it is made. What else is in it stays.
        model: a weights file that the node offers beside the built-in networks; None for none.

    Returns:
        `folder` as a path.

    Raises:
        WeightsError: `model` names no network, or its file is damaged.
        InputError: `model` is a built-in name, which the node has already.
        OutputError: the folder cannot be written.
    """
    target = as_path(folder, "output")
    if model is not None and str(model) in weights.BUILTIN:
        raise InputError(f"model: {model} is built in, the node has it already")
    network = None if model is None else weights.load(model)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        raise OutputError(f"{target}: could not be made: {reason(error)}") from error
    if network is not None:
        weights.save(network, target / (Path(str(model)).stem + _SUFFIX))
    for name, text in (("requirements.txt", f"espan>={__version__}\n"), ("__init__.py", _FACE)):
        with whole_file(target / name) as temporary:
            temporary.write_text(text)
    return target


def mappings(folder: Path) -> tuple[dict[str, type], dict[str, str]]:
    """What ComfyUI asks a folder of nodes for: its classes, and what they are called."""
    found = {path.stem: str(path) for path in sorted(folder.glob(f"*{_SUFFIX}"))}

    class EspanUpscale(Node):
        models: ClassVar[dict[str, str]] = {name: name for name in weights.BUILTIN} | found

    return {"EspanUpscale": EspanUpscale}, {"EspanUpscale": "Upscale (espan)"}


class Node:
    """Upscales a batch of images; `models` has names to choose from, and what they stand for."""

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
        """(N, H, W, C) in 0..1, as ComfyUI has images -> the same, larger."""
        if model not in self.models:
            raise InputError(f"model: expected one of {', '.join(self.models)}, got {model!r}")
        held = _held(self.models[model], tile, precision)
        factor = check_scale(float(scale), held.scale)
        count, height, width, channels = image.shape
        across, down = result_size(factor, (width, height))
        result = image.new_empty((count, down, across, channels), device="cpu")
        tell, stop = _bar(count), _interruption()
        for i in range(count):
            stop()
            result[i] = held(image[i].permute(2, 0, 1), factor).permute(1, 2, 0)
            tell(1)
        return (result,)


@lru_cache(maxsize=2)
def _held(model: str, tile: int, precision: str) -> Upscaler:
    if precision == "auto":  # ComfyUI's images are floats, made from 8 bits by most of its nodes
        precision = "fp16" if torch.cuda.is_available() else "auto"
    return Upscaler(model, dtype=precision, tile=tile or "auto")  # type: ignore[arg-type]


def _bar(count: int) -> Any:
    """ComfyUI's progress; outside of it nothing is told."""
    try:
        return importlib.import_module("comfy.utils").ProgressBar(count).update
    except ImportError:
        return lambda _done: None


def _interruption() -> Any:
    """What raises when the user has stopped the queue."""
    try:
        management = importlib.import_module("comfy.model_management")
    except ImportError:
        return lambda: None
    return management.throw_exception_if_processing_interrupted
