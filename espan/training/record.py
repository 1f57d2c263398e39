"""The record of a run: log.jsonl, TensorBoard, validation images and the progress bar."""

import json
import time
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from espan.evaluation.benchmark import evaluate
from espan.images import files
from espan.networks.network import Network
from espan.training.config import TrainConfig
from espan.upscaler import Upscaler

IMAGES = 4  # saved per validation set


class Record:
    """The record of one run; a no-op in all processes except the first."""

    def __init__(self, out: Path, config: TrainConfig, active: bool):
        self.out, self.config, self.active = out, config, active

    def __enter__(self) -> "Record":
        self.log = (self.out / "log.jsonl").open("a") if self.active else None
        self.board = _tensorboard(self.out) if self.active else None
        return self

    def __exit__(self, *_error) -> None:
        if self.log:
            self.log.close()
        if self.board:
            self.board.close()

    def begin(self, stage: TrainConfig, step: int) -> None:
        """Starts the record of a stage at `step`."""
        self.stage, self.first = stage, step
        self.began, self.waited = time.monotonic(), 0.0
        self.bar = tqdm(
            total=stage.steps,
            initial=step,
            unit="step",
            desc=stage.name,
            disable=None if self.active else True,
        )

    def end(self) -> None:
        self.bar.close()

    def write(
        self, step: int, overall: int, terms: dict[str, float], shares: dict, scores: dict
    ) -> None:
        """Writes a row: the loss, its terms and their statistics, validation scores and speed.

        overall: steps of all stages, the axis of TensorBoard.
        """
        if not self.log:
            return
        steps, seconds = step - self.first, time.monotonic() - self.began
        row = {
            "stage": self.stage.name,
            "step": step,
            "loss": sum(terms.values()),
            **terms,
            **shares,
            **scores,
        }
        row["steps_per_second"] = round(steps / seconds, 2)
        row["images_per_second"] = round(steps * self.stage.batch / seconds, 1)
        row["data_wait_ms"] = round(1000 * self.waited / max(steps, 1), 2)
        self.log.write(json.dumps(row) + "\n")
        self.log.flush()
        shown = {
            k: f"{v:.5g}" for k, v in row.items() if k in ("loss", "images_per_second", *scores)
        }
        self.bar.set_postfix(shown)
        if self.board:
            for key, value in row.items():
                if isinstance(value, float | int):
                    self.board.add_scalar(key, value, overall)

    def validate(self, net: Network, overall: int, device: str) -> dict[str, float]:
        """Mean Y PSNR of each validation set; saves the first images as files."""
        if self.config.validate is None:
            return {}
        kept: list[np.ndarray] = []
        upscaler = Upscaler(net, device=device, dtype="fp32")

        def keeping(image: np.ndarray) -> np.ndarray:
            result = upscaler(image)
            if len(kept) < IMAGES:
                kept.append(result)
            return result

        rows = list(evaluate(keeping, self.config.validate, net.scale))
        names = [row.name for row in rows if row.name != "mean" and not row.error]
        (self.out / "pictures").mkdir(exist_ok=True)
        for name, image in zip(names, kept, strict=False):
            files.write(self.out / "pictures" / f"{name}.png", Image.fromarray(image))
            if self.board:
                self.board.add_image(name, image, overall, dataformats="HWC")
        return {f"{row.dataset} psnr_y": row.values["psnr_y"] for row in rows if row.name == "mean"}


def _tensorboard(out: Path):
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:  # optional: part of espan[train]
        return None
    return SummaryWriter(out / "tensorboard")
