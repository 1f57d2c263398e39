"""Training settings: typed defaults, read from YAML, with unknown keys and wrong types refused."""

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Sequence
from pathlib import Path

from espan.errors import InputError


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One run of `espan train`. Patches are in LR pixels, schedules in steps."""

    data: str  # folder of HR pictures, searched recursively
    out: str  # folder of the run: checkpoints, log, the config itself
    validate: str | None = None  # folder with HR/ and LRx<scale>/, or of HR pictures alone
    scale: int = 4
    channels: int = 32
    blocks: int = 5
    last_convs: int = 2  # convs of the last, shortened block
    rep: str | None = None  # branches to train with (espan.layers.BRANCHES); None: plain convs
    steps: int = 14_000
    batch: int = 16
    patch: int = 48
    lr: float = 1.5e-3  # Adam's, at the peak of the cosine
    muon_lr: float | None = 7e-4  # Muon's, for the kernels inside the blocks; None: Adam for all
    muon_decay: float = 0.2  # weight decay of those kernels, per step and learning rate
    clip: float = 1.0  # largest norm of all gradients together
    warmup: float = 0.1  # share of the steps in which the rate climbs to its peak
    ema: float = 0.999
    precision: str = "bf16"  # autocast of the forward pass: bf16 or fp32
    every: int = 1000  # steps between validations and checkpoints
    seed: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        if self.precision not in ("bf16", "fp32"):
            raise InputError(f"precision: expected bf16 or fp32, got {self.precision!r}")
        # Three channels carry the picture past the blocks when training starts.
        smallest = {"steps": 1, "batch": 1, "patch": 1, "every": 1, "channels": 3, "seed": 0}
        for name, least in smallest.items():
            if getattr(self, name) < least:
                raise InputError(f"{name}: expected at least {least}, got {getattr(self, name)}")

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """The settings of a YAML file, with `key=value` overrides on top.

    Raises InputError for an unreadable file, an unknown key (naming the nearest known one), a
    missing one, or a value of the wrong type.
    """
    try:
        import yaml
    except ImportError as error:
        raise InputError("training reads YAML: pip install 'espan[train]'") from error

    try:
        values = yaml.safe_load(Path(path).read_text()) or {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not a readable YAML file: {error}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected `key: value` lines")
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise InputError(f"override: expected key=value, got {override!r}")
        try:
            values[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InputError(f"override: {override!r} is not YAML") from error

    kinds = typing.get_type_hints(TrainConfig)
    for key, value in values.items():
        if key not in kinds:
            near = difflib.get_close_matches(str(key), kinds, 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise InputError(f"{path}: unknown setting {key!r}{hint}")
        values[key] = _typed(key, value, kinds[key])
    required = [f.name for f in dataclasses.fields(TrainConfig) if f.default is dataclasses.MISSING]
    if missing := [name for name in required if name not in values]:
        raise InputError(f"{path}: missing setting {', '.join(missing)}")
    return TrainConfig(**values)


def _typed(key: str, value: object, kind: type | types.UnionType) -> object:
    kinds = typing.get_args(kind) or (kind,)
    if float in kinds and isinstance(value, int | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-3 as a string
        except ValueError:
            pass
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        expected = " or ".join("nothing" if k is types.NoneType else k.__name__ for k in kinds)
        raise InputError(f"{key}: expected {expected}, got {value!r}")
    return value
