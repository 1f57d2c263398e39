"""Training settings: typed defaults, read from YAML; rejects unknown keys and wrong types."""

import dataclasses
import difflib
import json
import math
import re
import types
import typing
from collections.abc import Sequence
from pathlib import Path

from espan.checkpoints.weights import LARGEST, LONGEST_REP
from espan.errors import InputError
from espan.system.atomic import whole_file
from espan.system.extras import extra
from espan.training.recipes import find
from espan_kernels.dct2d import BLOCKS

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
SCHEDULES = ("cosine", "step")
# `data` with this value: synthetic images, enough to try a recipe.
SYNTHETIC = "synthetic"
# Settings of the run; stages may change all others.
_OF_THE_RUN = (
    "data out init validate channels stages average every keep seed device devices nodes workers"
)
# At least 3 channels: they pass the image around the blocks when training starts.
_RANGES = {
    **dict.fromkeys(("steps", "every", "keep"), (1, 10**9)),
    **dict.fromkeys(("devices", "nodes"), (1, 4096)),
    "batch": (1, 2**20),
    "patch": (1, 2**14),
    "workers": (0, 256),
    "seed": (0, 10**9),
    **dict.fromkeys(("l1", "mse", "dct", "highpass", "distill", "muon_decay"), (0, 1e9)),
    **dict.fromkeys(("teacher_l1", "teacher_mse", "teacher_affinity"), (0, 1e9)),
    **dict.fromkeys(("cutblur", "mixup", "shapes", "borders", "warmup", "margin"), (0, 1)),
    "frequency_share": (0, 0.9),
    "channels": (3, LARGEST["channels"]),
    "blocks": (1, LARGEST["blocks"]),
    "scale": (2, 4),
    "ema": (0, 0.999999),
}
LONGEST_LIST = 100
# The weights with the best validation score of a stage.
BEST = "best.safetensors"
# Settings that may change when a run resumes: they do not affect the result.
FREE = ["data", "out", "validate", "every", "keep", "device", "devices", "nodes", "workers"]


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One run of `espan train`. Patches are in LR pixels, schedules in steps."""

    data: str  # folder of HR images, with HR/ and LRx<scale>/, or written by espan prepare
    out: str  # folder of the run: checkpoints, log, config.json
    validate: str | None = None  # folder of HR images, with HR/ and LRx<scale>/, or of such sets
    init: str | None = None  # initial weights of any scale: a file or a built-in name
    stages: list[dict] = dataclasses.field(default_factory=list)  # the settings each one changes
    average: list[str] = dataclasses.field(default_factory=list)  # weights averaged into the result
    name: str = "main"  # name of the stage

    scale: int = 4
    channels: int = 32
    blocks: int = 5
    last_convs: int = 2  # convolutions of the last, shorter block
    rep: str | None = None  # branches for training (espan.networks.reparam); None: plain
    student: int | None = None  # self-distillation: blocks of the student; None: no student

    steps: int = 14_000
    batch: int = 16  # total of all processes
    patch: int = 48
    lr: float = 1.5e-3  # of Adam, at the peak of the schedule
    muon_lr: float | None = 7e-4  # of Muon, for the kernels in the blocks; None: Adam for all
    muon_decay: float = 0.2  # weight decay of these kernels, per step, times muon_lr
    clip: float = 1.0  # maximum gradient norm per optimizer
    schedule: str = "cosine"  # or step: times `gamma` at each of `milestones`
    milestones: list[float] = dataclasses.field(default_factory=lambda: [0.5, 0.8, 0.9, 0.95])
    gamma: float = 0.5
    warmup: float = 0.1  # share of the steps for linear warm-up
    ema: float = 0.999
    precision: str = "bf16"  # of both passes: bf16, fp16 or fp32 (TF32 convolutions on a GPU)

    l1: float = 1.0  # weights of the terms of the loss (espan.training.losses)
    mse: float = 0.0
    dct: float = 0.0
    dct_block: int | None = None  # block side of the DCT; None: the full patch
    highpass: float = 0.0
    frequency_share: float = 0.0  # share of the loss to which dct and highpass are scaled; 0: off
    blur: float = 1.5  # standard deviation, in HR pixels, of the Gaussian that highpass subtracts
    distill: float = 0.01  # weight of the student's distance from its teacher
    margin: float = 0.01  # a pixel counts if the teacher is better by more than this

    teacher: list[str] = dataclasses.field(default_factory=list)  # weights of larger networks
    teacher_scale: int | None = None  # their scale if it is larger: their outputs are scaled down
    teacher_outputs: str | None = None  # folder for their outputs; None: computed in each step
    teacher_ensemble: bool = False  # stored outputs are the mean over eight flips and rotations
    teacher_l1: float = 1.0  # weights of the distances from the teachers' mean output
    teacher_mse: float = 0.0
    teacher_affinity: float = 0.0  # weight for their features (espan.training.teachers)

    degrade: bool = False  # LR by a chain of real-world degradations instead of files or bicubic
    cutblur: float = 0.0  # share of patches with a part of the HR image pasted into the LR image
    mixup: float = 0.0  # share of patches that blend two images
    shapes: float = 0.0  # share of drawn patches: flat colours, hard edges, text
    borders: float = 0.0  # share of the other patches that are cut at an image border

    every: int = 1000  # steps between validations and checkpoints
    keep: int = 2  # number of checkpoints kept
    seed: int = 0
    device: str = "auto"
    devices: int = 1  # processes on this machine, one device each; torchrun overrides it
    nodes: int = 1  # number of machines
    workers: int = 0  # processes that cut patches; 0: the training process does

    def __post_init__(self) -> None:
        for name in ("data", "out", "validate", "init", "teacher_outputs"):
            if getattr(self, name) == "":  # as a Path, the current folder
                raise InputError(f"{name}: the name is empty")
        for name, known in (("precision", PRECISIONS), ("schedule", SCHEDULES)):
            if getattr(self, name) not in known:
                expected = " or ".join(known)
                raise InputError(f"{name}: expected {expected}, got {getattr(self, name)!r}")
        for name, (least, most) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                bound = f"at least {least:g}" if value < least else f"at most {most:g}"
                raise InputError(f"{name}: expected {bound}, got {value}")
        for name in ("stages", "teacher", "milestones"):
            if (length := len(getattr(self, name))) > LONGEST_LIST:
                raise InputError(f"{name}: expected at most {LONGEST_LIST}, got {length}")
        if self.rep is not None and len(self.rep) > LONGEST_REP:
            raise InputError(f"rep: expected at most {LONGEST_REP} characters")
        for name in ("lr", "muon_lr", "clip", "gamma", "blur"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"{name}: expected a number above 0, got {value}")
        if not all(0 <= share <= 1 for share in self.milestones):
            raise InputError(f"milestones: expected shares of the steps, got {self.milestones}")
        if self.dct_block is not None and self.dct_block not in BLOCKS:
            blocks = ", ".join(map(str, BLOCKS))
            raise InputError(f"dct_block: expected one of {blocks}, got {self.dct_block}")
        if not re.fullmatch(r"\w[\w.-]*", self.name) or f"{self.name}.safetensors" == BEST:
            raise InputError(f"name: expected a file name, and not 'best', got {self.name!r}")
        self._check_teachers()
        if not (self.l1 or self.mse or self.dct or self.highpass or self.teacher):
            raise InputError("l1, mse, dct, highpass: all are 0, expected one above 0")
        self._check_share()
        if self.dct_block and (self.patch * self.scale) % self.dct_block:
            side = self.patch * self.scale
            raise InputError(
                f"dct_block: {self.dct_block} does not divide a patch of {side} pixels"
            )
        if self.student is not None and not 1 <= self.student <= self.blocks:
            raise InputError(f"student: expected 1 to {self.blocks} blocks, got {self.student}")
        if self.student == self.blocks and not self.last_convs:
            raise InputError("student: as deep as its teacher; give the teacher more blocks")
        names = [self.stage(number).name for number in range(len(self.stages))]
        if len(set(names)) < len(names) or "final" in names[:-1]:
            raise InputError(
                f"stages: expected unique names, and 'final' last, got {', '.join(names)}"
            )

    def _check_share(self) -> None:
        if not self.frequency_share:
            return
        if not (self.dct or self.highpass):
            raise InputError("frequency_share: needs dct or highpass above 0")
        if not (self.l1 or self.mse or self.teacher):
            raise InputError("frequency_share: needs a term besides dct and highpass")

    def _check_teachers(self) -> None:
        if not self.teacher:
            return
        if not (self.teacher_l1 or self.teacher_mse or self.teacher_affinity):
            raise InputError(
                "teacher_l1, teacher_mse, teacher_affinity: all are 0, expected one above 0"
            )
        if self.teacher_scale is not None and self.teacher_scale <= self.scale:
            raise InputError(
                f"teacher_scale: expected more than scale, {self.scale}, got {self.teacher_scale}"
            )
        if self.teacher_outputs is None:
            if self.teacher_scale:
                raise InputError("teacher_scale: scales stored outputs down; set teacher_outputs")
            if self.teacher_ensemble:
                raise InputError("teacher_ensemble: averages stored outputs; set teacher_outputs")
            if self.shapes:
                raise InputError(
                    "shapes: teachers that run in each step would also teach drawings, whose exact "
                    "HR patches are known; set teacher_outputs, or no teacher"
                )
            return
        if self.teacher_affinity:
            raise InputError(
                "teacher_affinity: needs the teachers' features, teacher_outputs has none"
            )
        changed = [name for name in ("degrade", "cutblur", "mixup") if getattr(self, name)]
        if changed:
            raise InputError(
                f"{', '.join(changed)}: changes the LR images, but teacher_outputs are for the "
                "original ones; remove teacher_outputs"
            )

    @property
    def number_of_stages(self) -> int:
        return max(1, len(self.stages))

    def stage(self, number: int) -> "TrainConfig":
        """The settings of one stage."""
        if not self.stages:
            return self
        known = {f.name for f in dataclasses.fields(self)} - set(_OF_THE_RUN.split())
        where = f"stages[{number}]"
        changes: dict[str, typing.Any] = {
            key: _typed(f"{where}.{key}", value, _known(where, key, known))
            for key, value in self.stages[number].items()
        }
        name = changes.get("name", f"stage{number}")
        try:
            return dataclasses.replace(self, **(changes | {"name": name, "stages": []}))
        except InputError as error:
            raise InputError(f"{where}: {error}") from error

    def save(self, path: Path) -> None:
        with whole_file(path) as temporary:
            temporary.write_text(json.dumps(dataclasses.asdict(self), indent=2) + "\n")


KINDS = typing.get_type_hints(TrainConfig)


def read_config(path: str | Path, overrides: Sequence[str] = ()) -> TrainConfig:
    """Reads settings from a YAML file or a recipe and applies `key=value` overrides.

    Raises InputError for an unreadable file, an unknown key (with the nearest known one), a missing
    key, or a value of the wrong type.
    """
    yaml = extra("yaml", "training", "train")
    path = find(path)
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a readable YAML file: {reason}") from error
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected `key: value` lines")
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals:
            raise InputError(f"override: expected key=value, got {override!r}")
        try:
            values[key] = yaml.safe_load(value)
        except (ValueError, yaml.YAMLError, RecursionError) as error:
            raise InputError(f"override: {override[:200]!r} is not YAML") from error

    for key, value in values.items():
        values[key] = _typed(key, value, _known(path, key, KINDS))
    required = ("data", "out")
    if missing := [name for name in required if name not in values]:
        raise InputError(f"{path}: missing setting {', '.join(missing)}")
    return TrainConfig(**values)


def _known(where: object, key: str, known) -> object:
    """The type of a setting."""
    if key not in known:
        near = difflib.get_close_matches(str(key), known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise InputError(f"{where}: unknown setting {key!r}{hint}")
    return KINDS[key]


def _typed(key: str, value: object, kind) -> object:
    if typing.get_origin(kind) is list:
        of = typing.get_args(kind)[0]
        if of is str and isinstance(value, str):  # a single name without brackets
            value = [value]
        if not isinstance(value, list):
            raise InputError(f"{key}: expected a list, got {value!r}")
        return [_typed(f"{key}[{i}]", each, of) for i, each in enumerate(value)]
    kinds = typing.get_args(kind) or (kind,)
    if float in kinds and isinstance(value, int | str) and not isinstance(value, bool):
        try:
            return float(value)  # YAML parses 1e-3 as a string
        except ValueError:
            pass
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        expected = " or ".join("nothing" if k is types.NoneType else k.__name__ for k in kinds)
        raise InputError(f"{key}: expected {expected}, got {value!r}")
    return value
