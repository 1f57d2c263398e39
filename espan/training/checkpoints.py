"""Checkpoints of a run: the last few, whole or absent, and refused when the settings differ."""

import logging
from dataclasses import asdict
from pathlib import Path

import torch

from espan.checkpoints.untrusted import read_torch
from espan.errors import InputError, WeightsError
from espan.system.atomic import whole_file
from espan.training.config import FREE, TrainConfig

log = logging.getLogger("espan")

# What a checkpoint holds, and as what.
PARTS = {
    **dict.fromkeys(("config", "net", "average", "precision"), dict),
    **dict.fromkeys(("stage", "step"), int),
    "optimizers": list,
}


class Checkpoints:
    """Writes `checkpoint-<stage>-<step>.pt`, keeps the last `config.keep`, reads the newest."""

    def __init__(self, out: Path, config: TrainConfig):
        self.out, self.config = out, config

    def paths(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.out.glob("checkpoint-*-*.pt"))

    def write(self, stage: int, step: int, state: dict) -> None:
        state |= {"config": asdict(self.config), "stage": stage, "step": step}
        path = self.out / f"checkpoint-{stage:02d}-{step:08d}.pt"
        with whole_file(path) as temporary:
            torch.save(state, temporary)
        # One of a later step is there when it was damaged and an older one was gone on from.
        others = [other for other in self.paths() if other != path]
        for old in others[: max(len(others) - self.config.keep + 1, 0)]:
            old.unlink()

    def newest(self) -> dict | None:
        """The newest one that is whole, and its "path"; None before the first."""
        paths = self.paths()[::-1]
        for path in paths:
            try:
                return self._read(path) | {"path": path}
            except WeightsError as error:
                log.warning("%s: damaged (%s), the one before it is tried", path, error)
        if paths:
            raise InputError(f"{paths[0]}: damaged, as all of them; remove them to begin again")
        return None

    def _read(self, path: Path) -> dict:
        """What a checkpoint holds; WeightsError unless it has all that a run goes on from."""
        state = read_torch(path)
        parts = state if isinstance(state, dict) else {}
        if missing := [name for name in PARTS if not isinstance(parts.get(name), PARTS[name])]:
            raise WeightsError(f"a checkpoint without {', '.join(missing)}")
        self._compare(path, state["config"])
        stage, step = state["stage"], state["step"]
        known = 0 <= stage < self.config.number_of_stages
        if not known or not 0 <= step <= self.config.stage(stage).steps:
            raise WeightsError(f"of stage {stage}, step {step}, which this run does not have")
        return state

    def _compare(self, path: Path, before: dict) -> None:
        now = asdict(self.config)
        changed = [key for key in now if key not in FREE and before.get(key) != now[key]]
        if changed:
            names = ", ".join(changed)
            raise InputError(f"{path}: was made with another {names}; choose another out")
