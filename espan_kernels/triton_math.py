"""Device functions shared by the Triton kernels."""

import triton
import triton.language as tl

from espan_kernels import machine

# The interpreter multiplies bfloat16 bit patterns as integers. Converting operands to float32
# first gives the same exact products as tensor cores.
INTERPRETED = tl.constexpr(machine.INTERPRETED)


@triton.jit
def dot(a, b, acc):
    """acc + a @ b, accumulated in float32 and without TF32."""
    if INTERPRETED:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision="ieee")


@triton.jit
def narrow(x, dtype: tl.constexpr):
    """Converts float32 x to `dtype`, rounding to nearest; the interpreter truncates bfloat16."""
    if INTERPRETED and dtype == tl.bfloat16:
        bits = x.to(tl.uint32, bitcast=True)
        bits += 0x7FFF + ((bits >> 16) & 1)
        x = bits.to(tl.float32, bitcast=True)
    return x.to(dtype)


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x)), finite for every finite x."""
    return 1.0 / (1.0 + tl.exp(-tl.maximum(x, -88.0)))


@triton.jit
def gate(x, y):
    """(y + x) * (sigmoid(y) - 1/2)."""
    return (y + x) * (sigmoid(y) - 0.5)
