"""Tensors out of files that nobody vouches for: nothing of them runs, nothing of them swells.

It knows no networks: `read_safetensors` and `read_torch` give what a file holds, or a WeightsError
whose message does not name the file yet.
"""

import copy
import re
import struct
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from espan.errors import WeightsError

State = dict[str, Tensor]

# Far above what networks of this family need: a training checkpoint has 500 tensors, the header of
# its file 60 KB.
MAX_BYTES = 1 << 28
MAX_HEADER = 1 << 20
MAX_TENSORS = 4096


def read_safetensors(path: Path) -> tuple[State, dict[str, str]]:
    """(the tensors, the metadata) of a safetensors file."""
    try:
        _check_header(path)
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            _at_most(MAX_TENSORS, len(names), "tensors")
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except WeightsError:
        raise
    except Exception as error:  # SafetensorError, and what numbers beyond all bounds become
        raise WeightsError(f"not a readable safetensors file: {one_line(error)}") from error


def _check_header(path: Path) -> None:
    """The length of the header, before anybody parses it."""
    with path.open("rb") as file:
        start = file.read(8)
    if len(start) < 8:
        raise WeightsError(f"not a readable safetensors file: {len(start)} bytes")
    (length,) = struct.unpack("<Q", start)
    _at_most(MAX_HEADER, length, "bytes of header")


def read_torch(path: Path) -> Any:
    """What `torch.save` wrote: tensors and plain containers of them, no code.

    Files of torch before 1.6 are bare pickles, no archive whose sizes can be looked at first.
    Every byte is held to the archive's CRC-32, which torch.load never looks at.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_entries(archive.infolist(), path.stat().st_size)
            _check_sums(archive)
    except WeightsError:
        raise
    except Exception as error:
        raise WeightsError(
            "refused: damaged, or no archive as torch.save writes since version 1.6 (a bare pickle "
            "would run code when loaded)"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Mapped, no storage reaches beyond the end of the file, whatever the pickle claims.
            state = torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)
            return copy.deepcopy(state)
    except Exception as error:  # on damaged files torch.load was seen to raise a dozen kinds
        if named := re.search(r"Unsupported global: GLOBAL ([\w.]+)", str(error)):
            raise WeightsError(
                f"refused: holds {named[1]}, and only plain tensors are read, as others would run "
                "code when loaded"
            ) from error
        if "weights_only" in str(error) or "Unsupported" in str(error):
            reason = "would run code when loaded (only plain tensors are read)"
            raise WeightsError(f"refused: it is damaged, or {reason}") from error
        raise WeightsError(f"not a readable PyTorch file: {one_line(error)}") from error


def _check_entries(entries: list[zipfile.ZipInfo], size: int) -> None:
    """Nothing of an archive is larger once unpacked: torch.save stores, it never compresses."""
    _at_most(2 * MAX_TENSORS, len(entries), "entries")
    if packed := [one.filename for one in entries if one.compress_type != zipfile.ZIP_STORED]:
        raise WeightsError(f"refused: compressed, as torch.save never writes: {some(packed)}")
    _at_most(size, sum(one.file_size for one in entries), "bytes in its archive")


def _check_sums(archive: zipfile.ZipFile) -> None:
    """Every entry is whole. By its own record, not by its name, which two entries might share."""
    entries = archive.infolist()
    if len({one.filename for one in entries}) < len(entries):
        raise WeightsError("refused: two entries of its archive have one name")
    for one in entries:
        try:
            with archive.open(one) as file:
                while file.read(1 << 20):
                    pass
        except zipfile.BadZipFile as error:
            raise WeightsError(
                f"damaged: {one.filename[:80]!r} in its archive has another CRC-32 than was written"
            ) from error


def check_plain(state: State) -> None:
    """WeightsError unless all are finite floating point numbers that the file really has."""
    _at_most(MAX_TENSORS, len(state), "tensors")
    for key, tensor in state.items():
        if type(tensor) not in (Tensor, torch.nn.Parameter) or tensor.layout != torch.strided:
            raise WeightsError(f"expected plain dense tensors, {key} is none")
        known = tensor.is_floating_point() and "float4" not in str(tensor.dtype)
        if tensor.device.type != "cpu" or not known:
            kind = f"{tensor.dtype} on {tensor.device}"
            raise WeightsError(f"expected floating point numbers, {key} is {kind}")
    if hollow := [k for k, t in state.items() if t.nbytes > t.untyped_storage().nbytes()]:
        raise WeightsError(f"weights claim more numbers than the file has: {some(hollow)}")
    # Many names may share one storage, but each becomes a tensor of its own.
    _at_most(MAX_BYTES, sum(tensor.nbytes for tensor in state.values()), "bytes of tensors")
    # As float32, which is what they become: float64 has larger ones.
    if bad := [key for key, tensor in state.items() if not tensor.float().isfinite().all()]:
        raise WeightsError(f"weights are not finite: {some(bad)}")


def _at_most(most: int, found: int, what: str) -> None:
    if found > most:
        raise WeightsError(f"expected at most {most:,} {what}, found {found:,}")


def check_size(path: Path) -> None:
    _at_most(MAX_BYTES, path.stat().st_size, "bytes")


def some(names: Iterable[str], count: int = 4) -> str:
    names = [name[:80] for name in names]
    rest = len(names) - count
    return ", ".join(names[:count]) + (f" and {rest} more" if rest > 0 else "") or "nothing"


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
