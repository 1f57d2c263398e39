"""The loss: terms on pixels and frequencies, and the distance between student and teacher.

The paper's frequency-aware loss uses "the discrete cosine transform and a high-pass filter"; the L1
distances, the Gaussian and the weights are our choices (docs/method.md).
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from espan.training.config import TrainConfig
from espan_kernels import dct_l1

Terms = dict[str, Tensor]


def loss_of(sr: Tensor, hr: Tensor, config: TrainConfig) -> Terms:
    """The weighted terms of the loss with non-zero weights in `config`; their sum is the loss.

    sr, hr (N, 3, H, W) float32, 0..1.
    """
    terms = {}
    if config.l1:
        terms["l1"] = config.l1 * (sr - hr).abs().mean()
    if config.mse:
        terms["mse"] = config.mse * F.mse_loss(sr, hr)
    if config.dct:
        terms["dct"] = config.dct * dct_l1(sr, hr, block=config.dct_block)
    if config.highpass:
        # Blurring is linear: one blur of the difference instead of two.
        terms["highpass"] = config.highpass * high_pass(sr - hr, config.blur).abs().mean()
    return terms


def distance(sr: Tensor | tuple[Tensor, Tensor], hr: Tensor) -> Tensor:
    """The L1 distance, to which other terms are compared; with a student, the teacher's."""
    image = sr if isinstance(sr, Tensor) else sr[0]
    return (image.float() - hr).abs().mean()


def high_pass(x: Tensor, spread: float) -> Tensor:
    """x (N, C, H, W) minus its Gaussian blur, standard deviation `spread` pixels; edges repeat."""
    radius = min(math.ceil(3 * spread), *(side - 1 for side in x.shape[2:]))
    taps = torch.arange(-radius, radius + 1, device=x.device, dtype=x.dtype)
    taps = torch.exp(-0.5 * (taps / spread) ** 2)
    taps = taps / taps.sum()
    channels = x.size(1)
    blurred = F.pad(x, [radius] * 4, mode="replicate")
    for shape in ((1, 1, -1, 1), (1, 1, 1, -1)):
        weight = taps.view(shape).expand(channels, 1, *taps.view(shape).shape[2:])
        blurred = F.conv2d(blurred, weight, groups=channels)
    return x - blurred


def distillation(student: Tensor, teacher: Tensor, hr: Tensor, margin: float) -> Tensor:
    """Distance of the student from its teacher where the teacher is better by more than `margin`.

    As in RIFE (Huang et al., 2022), with images instead of flows; no gradient for the teacher.
    All tensors (N, 3, H, W).
    """
    teacher = teacher.detach()
    worse = (student - hr).abs().mean(1) > (teacher - hr).abs().mean(1) + margin
    # The gradient of a root is infinite at 0, hence the constant.
    distance = ((teacher - student).square().mean(1) + 1e-12).sqrt()
    return (worse.detach() * distance).mean()
