"""`python -m tests.verification.everyday`: a table of networks on everyday images.

Y PSNR in dB above MATLAB's bicubic, means over six photographs of scikit-image that were downscaled
and then degraded with JPEG or noise; the largest error (of 255) at least two LR pixels away from a
step of black and white; and the same in flat images of 27 colours. float32, on the CPU.
"""

import argparse

from espan import Upscaler
from espan.checkpoints.weights import BUILTIN
from tests.support.everyday import KINDS, border, gains, ghost


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", default=[*BUILTIN], help="default: all built-in ones")
    print(f"| | {' | '.join(KINDS)} | beside a step | flat |")
    print("| --- |" + " --- |" * (len(KINDS) + 2))
    for model in parser.parse_args().models:
        upscaler = Upscaler(model, device="cpu", dtype="fp32")
        numbers = gains(upscaler, upscaler.scale).values()
        cells = [f"{number:+.2f}" for number in numbers]
        cells += [str(ghost(upscaler, upscaler.scale)), str(border(upscaler))]
        print(f"| `{model}` | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
