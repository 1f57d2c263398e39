"""Results of the built-in networks for everyday images stay as good as measured (docs/models.md).

The bounds are the measured values, with 0.03 dB tolerance for gains. Some networks miss the goals
of 8 of 255 at edges and 4 of 255 in flat colours; the bounds show by how much.
"""

import numpy as np
import pytest

from espan import Upscaler
from tests.support.everyday import KINDS, border, gains, ghost, photographs

GAINS = {
    "espan-x4-web": {
        "clean": 0.88,
        "JPEG q75": 0.56,
        "JPEG q50": 0.47,
        "JPEG q30": 0.38,
        "noise 15": 1.38,
    },
    "espan-x2-web": {
        "clean": 0.57,
        "JPEG q75": 0.48,
        "JPEG q50": 0.44,
        "JPEG q30": 0.35,
        "noise 15": 1.96,
    },
}
# Largest errors, in levels of 255: near a step, in flat colours.
EDGES = {
    "espan-x2": (3, 10),
    "espan-x3": (3, 22),
    "espan-x4": (10, 30),
    "espan-x2-web": (6, 19),
    "espan-x4-web": (8, 33),
}


def upscaler_of(model: str) -> Upscaler:
    return Upscaler(model, device="cpu", dtype="fp32")


@pytest.mark.parametrize("model", GAINS)
def test_web_networks_are_better_than_bicubic(model):
    upscaler, least = upscaler_of(model), GAINS[model]
    measured = gains(upscaler, upscaler.scale, tuple(least))
    assert all(measured[kind] >= least[kind] for kind in least), measured


@pytest.mark.parametrize("model", EDGES)
def test_edges_and_borders(model):
    upscaler = upscaler_of(model)
    assert ghost(upscaler, upscaler.scale) <= EDGES[model][0]
    assert border(upscaler) <= EDGES[model][1]


def near(image: np.ndarray) -> np.ndarray:
    return image.repeat(4, 0).repeat(4, 1)


def test_the_measures_detect_planted_errors():
    """Nearest upsampling is exact for steps and flat colours, worse than bicubic elsewhere."""
    assert ghost(near, 4) == 0 and border(near) == 0

    def damaged(image: np.ndarray) -> np.ndarray:
        result = near(image).copy()
        result[0, 0] ^= 16  # a corner
        result[:, 21 * 4] ^= 64  # near the step
        return result

    assert ghost(damaged, 4) == 64 and border(damaged) == 64
    assert gains(near, 4, ("clean",))["clean"] < -0.5


def test_degradations_are_reproducible_and_of_the_named_strength():
    image = photographs()["astronaut"][:128, :128]
    for kind, degrade in KINDS.items():
        error = float(np.std(degrade(image).astype(int) - image))
        assert (error == 0) == (kind == "clean")
        assert np.array_equal(degrade(image), degrade(image))
        assert kind != "noise 15" or 13 < error < 15.1
