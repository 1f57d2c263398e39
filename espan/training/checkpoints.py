"""Checkpoints of a run: keeps the last few, writes atomically, refuses changed settings."""

import logging
from dataclasses import asdict
from pathlib import Path

import torch

from espan.checkpoints.untrusted import read_torch
from espan.errors import InputError, WeightsError
from espan.system.atomic import whole_file
from espan.training.config import FREE, TrainConfig

log = logging.getLogger("espan")

# Entries of a checkpoint and their types.
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
        """The checkpoint files, oldest first."""
        return sorted(self.out.glob("checkpoint-*-*.pt"))

    def write(self, stage: int, step: int, state: dict) -> None:
        state |= {"config": asdict(self.config), "stage": stage, "step": step}
        path = self.out / f"checkpoint-{stage:02d}-{step:08d}.pt"
        with whole_file(path) as temporary:
            torch.save(state, temporary)
        # A later step exists if its checkpoint was damaged and the run resumed from an older one.
        others = [other for other in self.paths() if other != path]
        for old in others[: max(len(others) - self.config.keep + 1, 0)]:
            old.unlink()

    def newest(self) -> dict | None:
        """The newest undamaged checkpoint, plus its "path"; None if there is none yet."""
        paths = self.paths()[::-1]
        for path in paths:
            try:
                return self._read(path) | {"path": path}
            except WeightsError as error:
                log.warning("%s: damaged (%s), trying the previous one", path, error)
        if paths:
            raise InputError(f"{paths[0]}: damaged, like all others; remove them to start over")
        return None

    def _read(self, path: Path) -> dict:
        """Reads a checkpoint; raises WeightsError if a run cannot resume from it."""
        state = read_torch(path)
        parts = state if isinstance(state, dict) else {}
        if missing := [name for name in PARTS if not isinstance(parts.get(name), PARTS[name])]:
            raise WeightsError(f"a checkpoint without {', '.join(missing)}")
        self._compare(path, state["config"])
        stage, step = state["stage"], state["step"]
        known = 0 <= stage < self.config.number_of_stages
        if not known or not 0 <= step <= self.config.stage(stage).steps:
            raise WeightsError(f"stage {stage}, step {step} does not exist in this run")
        return state

    def _compare(self, path: Path, before: dict) -> None:
        now = asdict(self.config)
        changed = [key for key in now if key not in FREE and before.get(key) != now[key]]
        if changed:
            names = ", ".join(changed)
            raise InputError(f"{path}: written with another {names}; choose another out")
