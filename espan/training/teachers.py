"""Teachers from weights files: larger networks whose outputs and features are learnt from."""

import hashlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from espan.checkpoints.weights import load
from espan.errors import InputError
from espan.networks.lists import LayerList
from espan.networks.network import Network
from espan.training.config import TrainConfig
from espan.training.distill import SelfDistilled
from espan.training.losses import Terms

# Side, in LR pixels, of the windows inside which features are compared with each other: over a
# whole patch the comparisons would grow with the fourth power of its side.
WINDOW = 8


class Teachers(nn.Module):
    """The networks of `config.teacher`, frozen; what counts is the mean of what they say.

    Raises WeightsError for a file that holds no network, InputError for one of another scale than
    `config.teacher_scale`, by default the run's own.
    """

    def __init__(self, config: TrainConfig):
        super().__init__()
        self.config = config
        nets = [load(path).requires_grad_(False) for path in config.teacher]
        for path, net in zip(config.teacher, nets, strict=True):
            if net.scale != (config.teacher_scale or config.scale):
                expected = f"teacher_scale is {config.teacher_scale}"
                if config.teacher_scale is None:
                    expected = f"stage {config.name!r} trains one of scale {config.scale}"
                raise InputError(
                    f"teacher: {path} is a network of scale {net.scale}, and {expected}"
                )
        self.nets: LayerList[Network] = LayerList(nets)
        self._theirs = [_Features(net) for net in nets]
        self._learners: list[tuple[str, _Features]] = []

    def watch(self, model: nn.Module) -> None:
        """Learns from now on where `model`, an ESPAN or one with a student, has its features."""
        nets = {"": model}
        if isinstance(model, SelfDistilled):
            nets = {"": model.teacher, "student_": model.student}
        self._learners = [(name, _Features(net)) for name, net in nets.items()]

    def terms(
        self,
        lr: Tensor,
        sr: Tensor | tuple[Tensor, Tensor],
        kept: Sequence[Tensor] = (),
        autocast: Callable[[], AbstractContextManager] = nullcontext,
    ) -> Terms:
        """The weighted terms of the loss for a batch, lr in 0..1, of which `watch`'s model made sr.

        kept: the teachers' outputs of the batch, 0..1, where they were computed before. Otherwise
        the teachers run now, inside of `autocast()`.
        """
        with torch.no_grad():
            if kept:
                pixels = kept[0]
            else:
                with autocast():
                    outputs = [net(lr).float().clamp(0, 1) for net in self.nets]
                pixels = torch.stack(outputs).mean(0)
                if self.config.teacher_affinity:
                    affinities = torch.stack([affinity(f.last) for f in self._theirs]).mean(0)
        config, terms = self.config, {}
        pictures = [sr] if isinstance(sr, Tensor) else sr
        for (name, features), picture in zip(self._learners, pictures, strict=True):
            picture = picture.float()
            if config.teacher_l1:
                terms[f"{name}teacher_l1"] = config.teacher_l1 * F.l1_loss(picture, pixels)
            if config.teacher_mse:
                terms[f"{name}teacher_mse"] = config.teacher_mse * F.mse_loss(picture, pixels)
            if config.teacher_affinity:
                distance = F.l1_loss(affinity(features.last), affinities)
                terms[f"{name}teacher_affinity"] = config.teacher_affinity * distance
        return terms

    def key(self) -> str:
        """Names the teachers by what they compute, whatever their files are called."""
        return _digest(sorted(_digest(_bytes_of(net)) for net in self.nets))[:12]


class _Features:
    """What a network's tail made of its features in the last forward pass, (N, C, H, W).

    The output of the 1x1 convolution that all networks have in front of the upsampling one.
    """

    def __init__(self, net: nn.Module):
        net.get_submodule("conv_cat").register_forward_hook(self._keep)

    def _keep(self, _layer, _inputs, output: Tensor) -> None:
        self.last = output


def affinity(features: Tensor) -> Tensor:
    """Cosines between the features of any two places in a window: (N, C, H, W) -> (..., P, P).

    They tell which places are alike to the network, and do not depend on its number of channels.
    Windows of 8x8 places, P = 64; what is left over at the right and lower border does not count.
    """
    side = min(WINDOW, *features.shape[2:])
    rows, columns = (n // side for n in features.shape[2:])
    x = features.float()[..., : rows * side, : columns * side]
    x = x.unflatten(3, (columns, side)).unflatten(2, (rows, side))
    x = F.normalize(x.permute(0, 2, 4, 1, 3, 5).flatten(4), dim=3)
    return x.transpose(3, 4) @ x


def _bytes_of(net: Network) -> list[bytes]:
    weights = [tensor.cpu().numpy().tobytes() for tensor in net.state_dict().values()]
    return [repr((type(net).__name__, sorted(net.config.items()))).encode(), *weights]


def _digest(parts: Sequence[bytes | str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()
