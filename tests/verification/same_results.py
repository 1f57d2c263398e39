"""Checks that two checkouts compute bit-identical results.

`python -m tests.verification.same_results OTHER`, where OTHER is the folder of the other checkout.

Upscales small images of several sizes, scales, networks, dtypes and backends with both and compares
digests of the results; with nvcc, g++ and Triton, also with the host build of the CUDA kernels and
Triton's interpreter. Prints every difference; exit code 1 if there is one.
"""

import argparse
import hashlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

import espan

ROOT = Path(__file__).parents[2]
SIZES = ((1, 1), (5, 3), (16, 24), (33, 47), (64, 120))
NETWORKS = ("espan-x2", "espan-x3", "espan-x4", "SPAN", "SPANF")
# (backend, dtype)
RUNS = (
    *(("auto", "fp32"), ("auto", "bf16"), ("auto", "auto")),
    *(("eager", "fp32"), ("eager", "bf16"), ("openvino", "fp32"), ("onnx", "fp32")),
)


def digests() -> dict[str, str]:
    """{case: SHA-256 of the result, or the reason why there is none} of this checkout."""

    def network(name: str):
        if name.startswith("espan"):
            return name
        torch.manual_seed(0)
        return getattr(espan, name)(blocks=2)

    found = {}
    for name, (backend, dtype) in itertools.product(NETWORKS, RUNS):
        try:
            up = espan.Upscaler(network(name), device="cpu", backend=backend, dtype=dtype)
        except espan.DeviceError as error:
            found[f"{name} {backend} {dtype}"] = str(error)
            continue
        for (height, width), kind in itertools.product(SIZES, (np.uint8, np.uint16, np.float32)):
            random = np.random.default_rng(height * width)
            pixels = random.random((height, width, 3))
            white = 1 if kind == np.float32 else np.iinfo(kind).max
            image = (pixels * white).astype(kind)
            key = f"{name} {backend} {dtype} {width}x{height} {kind.__name__}"
            found[key] = hashlib.sha256(up(image).tobytes()).hexdigest()
    return found | _plans()


def _plans() -> dict[str, str]:
    """The same for the kernels backend: Triton's interpreter and CUDA's host build."""
    from espan.backends.kernels import Plan
    from espan.networks.folding import fold
    from espan_kernels import machine, native
    from tests.support import shim

    found = {}
    impls = ["eager"] + ["triton"] * (not machine.no_triton())
    if not shim.missing():
        import tempfile

        with tempfile.TemporaryDirectory() as folder:
            module = shim.load(shim.objects(Path(folder)), Path(folder))
        module.seed(0)
        native.MODULE, native.REASON, native.DEVICE = module, None, module.DEVICE
        impls.append("cuda")
    for impl, kind in itertools.product(impls, (espan.ESPAN, espan.SPAN, espan.SPANF)):
        torch.manual_seed(0)
        dtype = torch.float16 if impl == "cuda" else torch.float32
        with torch.no_grad():
            plan = Plan(fold(kind(blocks=2)).to(dtype), impl)
        for height, width in SIZES[1:4]:
            x = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(1))
            y, _ = plan.checked((x * 255).to(torch.uint8))
            for what, result in (("numbers", plan(x.to(dtype)).float()), ("pixels", y)):
                key = f"{kind.__name__} plan {impl} {width}x{height} {what}"
                found[key] = hashlib.sha256(result.numpy().tobytes()).hexdigest()
    return found


def of(checkout: Path) -> dict[str, str]:
    """`digests` of a checkout, by this file, in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(checkout), "TRITON_INTERPRET": "1"}
    command = [sys.executable, str(Path(__file__).resolve()), "--digests"]
    done = subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{checkout}: {done.stderr}")
    return json.loads(done.stdout)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("other", nargs="?", type=Path, help="folder of the other checkout")
    parser.add_argument("--digests", action="store_true", help="print those of this checkout")
    arguments = parser.parse_args()
    if arguments.digests:
        torch.set_num_threads(1)
        print(json.dumps(digests()))
        return 0
    if arguments.other is None:
        parser.error("the folder of the other checkout is missing")
    ours, theirs = of(ROOT), of(arguments.other.resolve())
    different = [key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)]
    for key in sorted(different):
        print(f"differs: {key}: {ours.get(key)}, {theirs.get(key)}")
    print(f"{len(ours)} results, {len(different)} of them differ")
    return bool(different)


if __name__ == "__main__":
    raise SystemExit(main())
