"""Weight files: the only place that knows file formats and other projects' key names.

Ours are safetensors with metadata. Foreign files are recognised by their keys and shapes.
"""

import json
import pickle
import re
import zipfile
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from espan.errors import WeightsError
from espan.folding import fold
from espan.model import ARCHITECTURES, ESPAN, SPAN, SPANF, Network

# Networks that ship inside the package, by name.
BUILTIN = {"espan-x4": "espan_x4.safetensors"}

State = dict[str, Tensor]


class Layout(NamedTuple):
    """One foreign file format: keys it must have, and how it becomes a network."""

    name: str
    keys: tuple[str, ...]
    build: Callable[[State], tuple[Network, State]]


def _rename(state: State, *rules: tuple[str, str]) -> State:
    """Keys translated by regular expressions; a number written as @n counts from 0, not from 1."""
    renamed = {}
    for key, tensor in state.items():
        for pattern, to in rules:
            key = re.sub(pattern, to, key)
        key = re.sub(r"@(\d+)", lambda m: str(int(m[1]) - 1), key)
        renamed[key] = tensor
    return renamed


def _count(state: State, pattern: str) -> int:
    return len({m[1] for key in state if (m := re.match(pattern, key))})


def _scale(state: State, key: str) -> int:
    return round((state[key].shape[0] / 3) ** 0.5)


def _espan(state: State) -> tuple[Network, State]:
    net = ESPAN(
        channels=state["conv_1.eval_conv.weight"].shape[0],
        blocks=_count(state, r"block_(\d+)\."),
        last_convs=_count(state, r"teacher_block_seq\.c(\d)_r"),
        scale=_scale(state, "tea_upsampler.0.eval_conv.weight"),
    )
    blocks = net.config["blocks"]
    return net, _rename(
        state,
        (r"\.eval_conv", ""),
        (r"^block_(\d+)\.c(\d)_r", r"blocks.@\1.convs.@\2"),
        (r"^teacher_block_seq\.c(\d)_r", rf"blocks.{blocks}.convs.@\1"),
        (r"^tea_upsampler\.0", "upsampler"),
        (r"^tea_", ""),
    )


_SPAN_BLOCKS = (r"^block_(\d+)\.c(\d)_r", r"blocks.@\1.convs.@\2")


def _span(state: State, rep: str | None) -> Network:
    no_norm = "no_norm" in state  # neosr's mark for networks trained without normalisation
    return SPAN(
        channels=state["conv_cat.weight"].shape[0],
        blocks=_count(state, r"block_(\d+)\."),
        scale=_scale(state, "upsampler.0.weight"),
        rep=rep,
        **({"mean": (0.0, 0.0, 0.0), "img_range": 1.0} if no_norm else {}),
    )


def _span_slim(state: State) -> tuple[Network, State]:
    net = _span(state, rep=None)
    state = {key: tensor for key, tensor in state.items() if key != "no_norm"}
    return net, _rename(state, (r"\.eval_conv", ""), _SPAN_BLOCKS, (r"^upsampler\.0", "upsampler"))


def _span_train(state: State) -> tuple[Network, State]:
    net = _span(state, rep="span")
    # eval_conv is the authors' cache of the merged kernel; the branches are the truth.
    state = {k: v for k, v in state.items() if ".eval_conv." not in k and k != "no_norm"}
    return net, _rename(
        state,
        (r"\.sk\.", ".branches.0.0."),
        (r"\.conv\.(\d)\.", r".branches.1.\1."),
        _SPAN_BLOCKS,
        (r"^upsampler\.0", "upsampler"),
    )


def _spanf(state: State) -> tuple[Network, State]:
    near = state["conv_near.weight"]
    one_hot = torch.zeros_like(near)
    one_hot[:, :, 1, 1] = 1
    if not torch.equal(near, one_hot):
        raise WeightsError("conv_near is trained; expected the fixed nearest-neighbour kernel")
    net = SPANF(
        channels=state["conv_cat.weight"].shape[0],
        blocks=_count(state, r"block_(\d+)\."),
        scale=_scale(state, "conv_2.eval_conv.weight"),
    )
    state = {key: tensor for key, tensor in state.items() if key != "conv_near.weight"}
    # The gateless first block is a list of its own, so block_2 becomes blocks.0.
    state = _rename(
        state, (r"\.eval_conv", ""), (r"^block_1\.c(\d)_r", r"block_1.@\1"), _SPAN_BLOCKS
    )
    return net, {
        re.sub(r"^blocks\.(\d+)", lambda m: f"blocks.{int(m[1]) - 1}", key): tensor
        for key, tensor in state.items()
    }


LAYOUTS = (
    Layout(
        "ESPAN (NTIRE 2025, folded)",
        (
            "conv_1.eval_conv.weight",
            "block_1.c1_r.eval_conv.weight",
            "teacher_block_seq.c1_r.eval_conv.weight",
            "tea_conv_cat.weight",
            "tea_upsampler.0.eval_conv.weight",
        ),
        _espan,
    ),
    Layout(
        "SPAN (training checkpoint)",
        (
            "conv_1.sk.weight",
            "conv_1.conv.0.weight",
            "block_1.c1_r.conv.0.weight",
            "conv_cat.weight",
            "upsampler.0.weight",
        ),
        _span_train,
    ),
    Layout(
        "SPAN (folded)",
        (
            "conv_1.eval_conv.weight",
            "block_1.c1_r.eval_conv.weight",
            "conv_2.eval_conv.weight",
            "conv_cat.weight",
            "upsampler.0.weight",
        ),
        _span_slim,
    ),
    Layout(
        "SPAN-F (NTIRE 2025, folded)",
        (
            "conv_near.weight",
            "block_1.c1_r.eval_conv.weight",
            "conv_cat.weight",
            "conv_2.eval_conv.weight",
        ),
        _spanf,
    ),
)


def load(path_or_name: str | Path, *, folded: bool = True) -> Network:
    """The network of a weights file, or of a built-in name such as "espan-x4".

    Eval mode, float32, on the CPU; pictures (N, 3, H, W) in 0..1, any H and W; `net.scale` and
    `net.radius` say the rest. Reads our safetensors, and `.safetensors` or `.pth` files of
    ESPAN, SPAN (folded or training checkpoint) and SPAN-F; `.pth` never runs code.
    `folded=False` keeps the branches of a train-form file.

    Raises WeightsError naming the file: missing, damaged, unsafe, not finite, or of no network
    known here (then with what was looked for and the nearest match).
    """
    if str(path_or_name) in BUILTIN:
        path = resources.files("espan") / "builtin" / BUILTIN[str(path_or_name)]
    else:
        path = Path(path_or_name)
        if not path.is_file():
            raise WeightsError(
                f"{path}: no such weights file, and no built-in network of that name "
                f"(built in: {', '.join(BUILTIN)})"
            )
    try:
        net = _read(Path(str(path)))
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from error
    return (fold(net) if folded and not net.folded else net).eval()


def _read(path: Path) -> Network:
    with path.open("rb") as file:
        is_safetensors = path.suffix == ".safetensors" or file.read(9)[8:] == b"{"
    state, metadata = _read_safetensors(path) if is_safetensors else (_read_pth(path), {})
    if "espan" in metadata:
        net, state = _from_metadata(metadata["espan"], state)
    else:
        net, state = _recognise(state)
    state = {key: tensor.float() for key, tensor in state.items()}
    if bad := [key for key, tensor in state.items() if not tensor.isfinite().all()]:
        raise WeightsError(f"weights are not finite: {_some(bad)}")
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsError(f"does not fit {type(net).__name__}: {_one_line(error)}") from error
    return net


def _read_safetensors(path: Path) -> tuple[State, dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"not a readable safetensors file: {_one_line(error)}") from error


def _read_pth(path: Path) -> State:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            "refused: it is damaged, or would run code when loaded (only plain tensors are read)"
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise WeightsError(f"not a readable PyTorch file: {_one_line(error)}") from error
    for wrapper in ("params_ema", "params", "state_dict"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
            break
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError("expected a dictionary of tensors")
    return {str(key).removeprefix("module."): tensor for key, tensor in state.items()}


def _from_metadata(text: str, state: State) -> tuple[Network, State]:
    try:
        description = json.loads(text)
        net = ARCHITECTURES[description["arch"]](**description["config"])
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"metadata is not understood: {text[:200]!r}") from error
    return net, state


def _recognise(state: State) -> tuple[Network, State]:
    for layout in LAYOUTS:
        if all(key in state for key in layout.keys):
            try:
                return layout.build(state)
            except (ValueError, IndexError, KeyError) as error:
                raise WeightsError(f"looks like {layout.name}, but {_one_line(error)}") from error
    nearest = max(LAYOUTS, key=lambda each: sum(k in state for k in each.keys) / len(each.keys))
    missing = [key for key in nearest.keys if key not in state]
    raise WeightsError(
        "no network known here. Looked for the metadata of this package and for the keys of "
        f"{', '.join(layout.name for layout in LAYOUTS)}. Nearest: {nearest.name}, of which "
        f"{_some(missing)} is missing; the file has {_some(list(state))}"
    )


def save(net: Network, path: str | Path, *, dtype: torch.dtype | None = None, **notes: str) -> None:
    """Writes `net` as safetensors with the metadata that `load` reads.

    `dtype` converts the weights (torch.float16 halves the file). `notes` become metadata:
    training data, licence, scores. The file appears whole or not at all.
    """
    path = Path(path)
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
    temporary = path.with_name(f".{path.name}.part")
    save_file(state, temporary, metadata={"espan": json.dumps(description), **notes})
    temporary.replace(path)


def _some(names: list[str], count: int = 4) -> str:
    rest = len(names) - count
    return ", ".join(names[:count]) + (f" and {rest} more" if rest > 0 else "") or "nothing"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
