"""Weights files: own safetensors with metadata, and files of other projects, detected by keys."""

import hashlib
import json
import math
from importlib import resources
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor

from espan.checkpoints.foreign import recognise
from espan.checkpoints.untrusted import (
    State,
    check_plain,
    check_size,
    one_line,
    read_safetensors,
    read_torch,
)
from espan.errors import WeightsError
from espan.networks import SCALES
from espan.networks.espan import ESPAN
from espan.networks.folding import fold
from espan.networks.network import Network
from espan.networks.span import SPAN
from espan.networks.spanf import SPANF
from espan.sizes import Scale, check_scale, nearest
from espan.system.atomic import whole_file
from espan.system.paths import NOTHING, as_path, why_no_file

# Built-in networks by name: the defaults, for images that were only downscaled, and those for
# images with JPEG artefacts, noise and blur.
PLAIN = {scale: f"espan-x{scale}" for scale in SCALES}
WEB = {scale: f"espan-x{scale}-web" for scale in (2, 4)}
BUILTIN = {
    name: f"{name.replace('-', '_')}.safetensors" for name in (*PLAIN.values(), *WEB.values())
}
SHA256 = {
    "espan_x2.safetensors": "3d92e3d04465f219d67c9c01cfa49f5666c2dfe1166319a5b4138548cfa209ba",
    "espan_x3.safetensors": "5c4efe85d94ac01e04a1b06f6027091631afb3f71edfe2d5406695fa03c04f40",
    "espan_x4.safetensors": "1d32423648f56c66dd353d56732f9bbab6a1c12870d91bbae0fcb57ae92d45e2",
    "espan_x4_web.safetensors": "d82a9475ae5c92538221a862a2ce22cdce35b4bf16e57308675f92e1a0f93a30",
    "espan_x2_web.safetensors": "f1283c1dff792344dc3d39e54cf2fab6d77ec077104291fb4463a41f40853148",
}
# A network as callers pass it; None is a built-in one.
Model: TypeAlias = str | Path | Network | None
ARCHITECTURES: dict[str, type[Network]] = {net.__name__: net for net in (ESPAN, SPAN, SPANF)}
# Limits for metadata.
LARGEST = {"channels": 1024, "blocks": 64}
LONGEST_REP = 200


def load(path_or_name: str | Path, *, folded: bool = True) -> Network:
    """Loads a network from a weights file or by a built-in name such as "espan-x4".

    Args:
        path_or_name: a built-in name, a file written by `save`, or a published `.safetensors` or
            `.pth` file of ESPAN, SPAN (folded or a training checkpoint) or SPAN-F. Loading never
            runs code from a `.pth` file, and checks the SHA-256 of built-in files.
        folded: False keeps the branches of a file in training form.

    Returns:
        The network in eval mode, in float32, on the CPU, for images (N, 3, H, W) in 0..1 of any H
        and W. See its `scale` and `radius`.

    Raises:
        InputError: `path_or_name` is neither text nor a path.
        WeightsError: the file is missing, damaged, unsafe, too large, not finite, or has no known
            network; the message names the file, the known networks and the nearest match.
    """
    path, digest = as_path(path_or_name, "model", WeightsError), None
    if str(path_or_name) in BUILTIN:
        file = BUILTIN[str(path_or_name)]
        path = Path(str(resources.files("espan"))) / "builtin" / file
        digest = SHA256.get(file)
    if problem := why_no_file(path):
        missing = "no such weights file" if problem == NOTHING else f"{problem}, no weights file"
        raise WeightsError(
            f"{path}: {missing}, and no built-in network of that name "
            f"(built in: {', '.join(BUILTIN)})"
        )
    try:
        net = _read(path, digest)
    except (WeightsError, OSError) as error:
        raise WeightsError(f"{path}: {error}") from error
    return (fold(net) if folded and not net.folded else net).eval()


def model_for(scale: Scale) -> str:
    """The name of the plain built-in network for `scale`: the next scale up, or else the largest.

    A Size gets the largest, since its scale differs from image to image.
    """
    return PLAIN[nearest(check_scale(scale, max(PLAIN)), [*PLAIN])]


def _read(path: Path, digest: str | None) -> Network:
    check_size(path)
    if digest and hashlib.sha256(path.read_bytes()).hexdigest() != digest:
        raise WeightsError(
            "not the file of this version (its SHA-256 differs); install the package again"
        )
    with path.open("rb") as file:
        is_safetensors = path.suffix == ".safetensors" or file.read(9)[8:] == b"{"
    state, notes = read_safetensors(path) if is_safetensors else (_read_pth(path), {})
    check_plain(state)
    metadata: dict[str, Any] = {}
    if "espan" in notes:
        network, config, metadata = _from_metadata(notes["espan"])
    else:
        network, config, state = recognise(state)
    _check_bounds(config)
    state = {key: tensor.float() for key, tensor in state.items()}
    try:
        # First on the meta device: sizes that do not match the weights must not be allocated.
        with torch.device("meta"):
            bare = network(**config)
            bare.load_state_dict(state, assign=True)
        _check_metadata(metadata, bare)
        net = network(**config)
        net.load_state_dict(state)
    except WeightsError:
        raise
    except (RuntimeError, ValueError, TypeError) as error:
        raise WeightsError(f"does not fit {network.__name__}: {one_line(error)}") from error
    return net


def _read_pth(path: Path) -> State:
    state = read_torch(path)
    for wrapper in ("params_ema", "params", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
            break
    if not isinstance(state, dict):
        raise WeightsError(f"expected a dictionary of tensors, found a {type(state).__name__}")
    for key, value in state.items():
        if not isinstance(value, Tensor):
            kind = type(value).__name__
            raise WeightsError(f"expected a dictionary of tensors, {str(key)[:80]} is a {kind}")
    return {str(key).removeprefix("module."): tensor for key, tensor in state.items()}


def _from_metadata(text: str) -> tuple[type[Network], dict[str, Any], dict[str, Any]]:
    """Returns the class, its arguments and the full content of our metadata."""
    try:
        description = json.loads(text, parse_constant=_finite, parse_float=_finite)
        network, config = ARCHITECTURES[description["arch"]], dict(description["config"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WeightsError(f"metadata cannot be parsed: {text[:200]!r}") from error
    return network, config, description


def _check_metadata(metadata: dict[str, Any], net: Network) -> None:
    """Raises WeightsError if metadata contradicts the network."""
    for name, true in _described(net).items():
        value = metadata.get(name, true)
        if name not in ("arch", "config") and (type(value) is not type(true) or value != true):
            got = str(value)[:80]
            raise WeightsError(f"metadata: {name}: expected {true} for this network, got {got}")


def _check_bounds(config: dict[str, Any]) -> None:
    """Raises WeightsError for a network that would take too long to construct."""
    for name, most in LARGEST.items():
        value = config.get(name, 0)
        if isinstance(value, int) and value > most:
            raise WeightsError(f"{name}: expected at most {most}, got {str(value)[:20]}")
    rep = config.get("rep")
    if rep is not None and (not isinstance(rep, str) or len(rep) > LONGEST_REP):
        raise WeightsError(f"rep: expected at most {LONGEST_REP} characters or null")


def _finite(text: str) -> float:
    if not math.isfinite(value := float(text)):
        raise ValueError(f"{text} is not finite")
    return value


def save(net: Network, path: str | Path, *, dtype: torch.dtype | None = None, **notes: str) -> None:
    """Writes `net` as safetensors with metadata for `load`. Atomic: writes the full file or none.

    Args:
        net: a network in training or deploy form.
        path: the file to write.
        dtype: converts the weights (torch.float16 halves the file); None keeps their dtype.
        notes: more metadata, such as training data, licence and scores.

    Raises:
        OutputError: the file cannot be written.
    """
    content = to_bytes(net, dtype, notes)
    with whole_file(path) as temporary:
        temporary.write_bytes(content)


def to_bytes(net: Network, dtype: torch.dtype | None, notes: dict[str, str]) -> bytes:
    """The content of a file written by `save`."""
    state = {
        key: tensor.detach().to("cpu", dtype or tensor.dtype).contiguous()
        for key, tensor in net.state_dict().items()
    }
    return to_safetensors(state, metadata={**notes, "espan": json.dumps(_described(net))})


def _described(net: Network) -> dict[str, Any]:
    """Our metadata for a network."""
    return {
        "arch": type(net).__name__,
        "config": net.config,
        "scale": net.scale,
        "folded": net.folded,
        "range": "0..1",
        "channels_order": "RGB",
    }
