"""Self-distillation (SDPL): a student and its teacher share a backbone."""

import torch
from torch import Tensor, nn

from espan.networks.espan import ESPAN


class SelfDistilled(nn.Module):
    """A teacher, and a student with the teacher's head and first `depth` blocks and its own tail.

    x (N, 3, H, W) -> (the teacher's result, the student's); shared layers run once. `teacher` and
    `student` are ordinary networks that fold, save and run alone.
    """

    def __init__(self, teacher: ESPAN, depth: int):
        super().__init__()
        self.teacher = teacher
        channels, scale, rep = (teacher.config[key] for key in ("channels", "scale", "rep"))
        with torch.random.fork_rng(devices=[]):
            student = ESPAN(channels, depth, 0, scale, rep)
        self.student = student
        self.share()

    def share(self) -> None:
        """Replaces the student's head and blocks by the teacher's."""
        self.student.conv_1 = self.teacher.conv_1
        self.student.blocks = self.teacher.blocks[: len(self.student.blocks)]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        feature = self.teacher.conv_1(x)
        lasts = [feature]
        for block in self.teacher.blocks:
            lasts.append(block(lasts[-1]))
        first, middle, last = lasts[1], lasts[len(self.student.blocks)], lasts[-1]
        return self.teacher.tail(feature, first, last), self.student.tail(feature, first, middle)
