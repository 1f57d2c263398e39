"""Weight files: ours are safetensors with metadata, foreign ones are recognised by their keys."""

import json
import pickle
import warnings
import zipfile
from importlib import resources
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from espan.atomic import whole_file
from espan.errors import WeightsError
from espan.folding import fold
from espan.layouts import State, one_line, recognise, some
from espan.model import ARCHITECTURES, Network

# Networks that ship inside the package, by name.
BUILTIN = {f"espan-x{scale}": f"espan_x{scale}.safetensors" for scale in (2, 3, 4)}


def load(path_or_name: str | Path, *, folded: bool = True) -> Network:
    """The network of a weights file, or of a built-in name such as "espan-x4".

    Eval mode, float32, on the CPU; pictures (N, 3, H, W) in 0..1, any H and W; `net.scale` and
    `net.radius` say the rest. Reads our safetensors, and `.safetensors` or `.pth` files of
    ESPAN, SPAN (folded or training checkpoint) and SPAN-F; `.pth` never runs code.
    `folded=False` keeps the branches of a train-form file.

    Raises WeightsError naming the file: missing, damaged, unsafe, not finite, or of no network
    known here (then with what was looked for and the nearest match).
    """
    path = Path(path_or_name)
    if str(path_or_name) in BUILTIN:
        path = Path(str(resources.files("espan"))) / "builtin" / BUILTIN[str(path_or_name)]
    if not path.is_file():
        raise WeightsError(
            f"{path}: no such weights file, and no built-in network of that name "
            f"(built in: {', '.join(BUILTIN)})"
        )
    try:
        net = _read(path)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    return (fold(net) if folded and not net.folded else net).eval()


def _read(path: Path) -> Network:
    with path.open("rb") as file:
        is_safetensors = path.suffix == ".safetensors" or file.read(9)[8:] == b"{"
    state, metadata = _read_safetensors(path) if is_safetensors else (_read_pth(path), {})
    if hollow := [k for k, t in state.items() if t.nbytes > t.untyped_storage().nbytes()]:
        raise WeightsError(f"weights claim more numbers than the file has: {some(hollow)}")
    if bad := [key for key, tensor in state.items() if not tensor.isfinite().all()]:
        raise WeightsError(f"weights are not finite: {some(bad)}")
    if "espan" in metadata:
        network, config = _from_metadata(metadata["espan"])
    else:
        network, config, state = recognise(state)
    state = {key: tensor.float() for key, tensor in state.items()}
    try:
        # First without memory: a size that the weights do not have must not be allocated.
        with torch.device("meta"):
            network(**config).load_state_dict(state, assign=True)
        net = network(**config)
        net.load_state_dict(state)
    except (RuntimeError, ValueError, TypeError) as error:
        raise WeightsError(f"does not fit {network.__name__}: {one_line(error)}") from error
    return net


def _read_safetensors(path: Path) -> tuple[State, dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"not a readable safetensors file: {one_line(error)}") from error


# What torch.load was seen to raise on files with bytes flipped at random, beside its own errors.
PTH_ERRORS = (
    pickle.UnpicklingError,
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
    AssertionError,
    zipfile.BadZipFile,
)


def _read_pth(path: Path) -> State:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            "refused: it is damaged, or would run code when loaded (only plain tensors are read)"
        ) from error
    except PTH_ERRORS as error:
        raise WeightsError(f"not a readable PyTorch file: {one_line(error)}") from error
    for wrapper in ("params_ema", "params", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
            break
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError("expected a dictionary of tensors")
    return {str(key).removeprefix("module."): tensor for key, tensor in state.items()}


def _from_metadata(text: str) -> tuple[type[Network], dict]:
    try:
        description = json.loads(text)
        return ARCHITECTURES[description["arch"]], dict(description["config"])
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"metadata is not understood: {text[:200]!r}") from error


def save(net: Network, path: str | Path, *, dtype: torch.dtype | None = None, **notes: str) -> None:
    """Writes `net` as safetensors with the metadata that `load` reads.

    `dtype` converts the weights (torch.float16 halves the file). `notes` become metadata:
    training data, licence, scores. The file appears whole or not at all.

    Raises OutputError if it cannot be written.
    """
    description = {
        "arch": type(net).__name__,
        "config": net.config,
        "scale": net.scale,
        "folded": net.folded,
        "range": "0..1",
        "channels_order": "RGB",
    }
    state = {
        key: tensor.detach().to("cpu", dtype or tensor.dtype).contiguous()
        for key, tensor in net.state_dict().items()
    }
    content = to_safetensors(state, metadata={"espan": json.dumps(description), **notes})
    with whole_file(path) as temporary:
        temporary.write_bytes(content)
