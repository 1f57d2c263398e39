"""Self-distillation (SDPL): a student and its teacher on one backbone."""

import torch
from torch import Tensor, nn

from espan.networks.espan import ESPAN


class SelfDistilled(nn.Module):
    """A teacher and the student made of its head, its first `depth` blocks and a tail of its own.

    x (N, 3, H, W) -> (the teacher's picture, the student's), the shared layers run once. Both are
    ordinary networks: `teacher` and `student` fold, save and run alone.
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
        """Makes the student's head and blocks the teacher's."""
        self.student.conv_1 = self.teacher.conv_1
        self.student.blocks = self.teacher.blocks[: len(self.student.blocks)]

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        feature = self.teacher.conv_1(x)
        lasts = [feature]
        for block in self.teacher.blocks:
            lasts.append(block(lasts[-1]))
        first, middle, last = lasts[1], lasts[len(self.student.blocks)], lasts[-1]
        return self.teacher.tail(feature, first, last), self.student.tail(feature, first, middle)
