"""Teachers from weights files: larger networks whose outputs and features the student learns."""

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

# Side of the windows in which features are compared, in LR pixels. The number of pairs in a patch
# grows with the fourth power of its side.
WINDOW = 8


class Teachers(nn.Module):
    """The frozen networks of `config.teacher`; their mean output is the target.

    Raises WeightsError for a file without a network, InputError for a network of another scale than
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
        """Starts recording the features of `model`, an ESPAN or `SelfDistilled`."""
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
        """The weighted terms of the loss for a batch: lr in 0..1, sr by the model of `watch`.

        kept: precomputed outputs of the teachers, 0..1. Without them, the teachers run now, under
        `autocast()`.
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
        results = [sr] if isinstance(sr, Tensor) else sr
        for (name, features), result in zip(self._learners, results, strict=True):
            result = result.float()
            if config.teacher_l1:
                terms[f"{name}teacher_l1"] = config.teacher_l1 * F.l1_loss(result, pixels)
            if config.teacher_mse:
                terms[f"{name}teacher_mse"] = config.teacher_mse * F.mse_loss(result, pixels)
            if config.teacher_affinity:
                distance = F.l1_loss(affinity(features.last), affinities)
                terms[f"{name}teacher_affinity"] = config.teacher_affinity * distance
        return terms

    def key(self) -> str:
        """Identifies the teachers by their weights, independent of file names."""
        return _digest(sorted(_digest(_bytes_of(net)) for net in self.nets))[:12]


class _Features:
    """Records the features of a network in each forward pass, as `last` (N, C, H, W).

    They are the output of the 1x1 convolution before the upsampler, which all networks have.
    """

    def __init__(self, net: nn.Module):
        net.get_submodule("conv_cat").register_forward_hook(self._keep)

    def _keep(self, _layer, _inputs, output: Tensor) -> None:
        self.last = output


def affinity(features: Tensor) -> Tensor:
    """Cosines between the features of all pairs of pixels in a window: (N, C, H, W) -> (..., P, P).

    They compare pixels as the network sees them, independent of its number of channels. Windows are
    8x8, P = 64; pixels beyond the last full window are ignored.
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
