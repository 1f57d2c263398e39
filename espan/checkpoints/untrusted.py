"""Reads tensors from untrusted files: runs no code and limits sizes before it allocates.

Independent of networks. `read_safetensors` and `read_torch` return the content of a file, or raise
WeightsError; their callers add the name of the file to the message.
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

# Far above the needs of these networks: training checkpoints have 500 tensors, headers of 60 KB.
MAX_BYTES = 1 << 28
MAX_HEADER = 1 << 20
MAX_TENSORS = 4096


def read_safetensors(path: Path) -> tuple[State, dict[str, str]]:
    """Returns (tensors, metadata) of a safetensors file."""
    try:
        _check_header(path)
        with safe_open(path, framework="pt") as file:
            names = file.keys()
            _at_most(MAX_TENSORS, len(names), "tensors")
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except WeightsError:
        raise
    except Exception as error:  # SafetensorError, and other types for numbers out of bounds
        raise WeightsError(f"not a readable safetensors file: {one_line(error)}") from error


def _check_header(path: Path) -> None:
    """Checks the length of the header before it is parsed."""
    with path.open("rb") as file:
        start = file.read(8)
    if len(start) < 8:
        raise WeightsError(f"not a readable safetensors file: {len(start)} bytes")
    (length,) = struct.unpack("<Q", start)
    _at_most(MAX_HEADER, length, "bytes of header")


def read_torch(path: Path) -> Any:
    """Reads a `torch.save` file: tensors and plain containers of them, no code.

    Checks the CRC-32 of every byte, which torch.load does not. Refuses files of torch before 1.6:
    bare pickles, whose sizes cannot be checked first.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            _check_entries(archive.infolist(), path.stat().st_size)
            _check_sums(archive)
    except WeightsError:
        raise
    except Exception as error:
        raise WeightsError(
            "refused: damaged, or not an archive of torch.save from version 1.6 on (a bare pickle "
            "would run code when loaded)"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # With mmap, no storage extends beyond the end of the file, whatever the pickle claims.
            state = torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)
            return copy.deepcopy(state)
    except Exception as error:  # torch.load raises a dozen types for damaged files
        if named := re.search(r"Unsupported global: GLOBAL ([\w.]+)", str(error)):
            raise WeightsError(
                f"refused: contains {named[1]}; only plain tensors are read, because other objects "
                "may run code when loaded"
            ) from error
        if "weights_only" in str(error) or "Unsupported" in str(error):
            reason = "would run code when loaded (only plain tensors are read)"
            raise WeightsError(f"refused: damaged, or {reason}") from error
        raise WeightsError(f"not a readable PyTorch file: {one_line(error)}") from error


def _check_entries(entries: list[zipfile.ZipInfo], size: int) -> None:
    """Checks that no entry is compressed, so that none grows when read."""
    _at_most(2 * MAX_TENSORS, len(entries), "entries")
    if packed := [one.filename for one in entries if one.compress_type != zipfile.ZIP_STORED]:
        found = join_names(packed)
        raise WeightsError(f"refused: compressed entries, which torch.save never writes: {found}")
    _at_most(size, sum(one.file_size for one in entries), "bytes in its archive")


def _check_sums(archive: zipfile.ZipFile) -> None:
    """Checks the CRC-32 of all entries. Opens them by record: two entries may share a name."""
    entries = archive.infolist()
    if len({one.filename for one in entries}) < len(entries):
        raise WeightsError("refused: two entries of its archive have the same name")
    for one in entries:
        try:
            with archive.open(one) as file:
                while file.read(1 << 20):
                    pass
        except zipfile.BadZipFile as error:
            raise WeightsError(
                f"damaged: the CRC-32 of {one.filename[:80]!r} in its archive does not match"
            ) from error


def check_plain(state: State) -> None:
    """Raises WeightsError unless all tensors are dense, finite, floating point and in the file."""
    _at_most(MAX_TENSORS, len(state), "tensors")
    for key, tensor in state.items():
        if type(tensor) not in (Tensor, torch.nn.Parameter) or tensor.layout != torch.strided:
            raise WeightsError(f"expected plain dense tensors, {key} is not")
        known = tensor.is_floating_point() and "float4" not in str(tensor.dtype)
        if tensor.device.type != "cpu" or not known:
            kind = f"{tensor.dtype} on {tensor.device}"
            raise WeightsError(f"expected floating point numbers, {key} is {kind}")
    if hollow := [k for k, t in state.items() if t.nbytes > t.untyped_storage().nbytes()]:
        raise WeightsError(f"tensors larger than their data in the file: {join_names(hollow)}")
    # Names may share a storage in the file, but each becomes its own tensor.
    _at_most(MAX_BYTES, sum(tensor.nbytes for tensor in state.values()), "bytes of tensors")
    # As float32, their later dtype: larger float64 numbers overflow.
    if bad := [key for key, tensor in state.items() if not tensor.float().isfinite().all()]:
        raise WeightsError(f"weights are not finite: {join_names(bad)}")


def _at_most(most: int, found: int, what: str) -> None:
    if found > most:
        raise WeightsError(f"expected at most {most:,} {what}, found {found:,}")


def check_size(path: Path) -> None:
    _at_most(MAX_BYTES, path.stat().st_size, "bytes")


def join_names(names: Iterable[str], count: int = 4) -> str:
    names = [name[:80] for name in names]
    rest = len(names) - count
    return ", ".join(names[:count]) + (f" and {rest} more" if rest > 0 else "") or "nothing"


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
