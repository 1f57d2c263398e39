"""Device functions that several Triton kernels share; imported by kernels only."""

import triton
import triton.language as tl

from espan_kernels import machine

# The interpreter multiplies bfloat16 bit patterns as integers: there operands go up to float32
# first, which gives the exact products that a tensor core makes.
INTERPRETED = tl.constexpr(machine.INTERPRETED)


@triton.jit
def dot(a, b, acc):
    """acc + a @ b, accumulated in float32; float32 operands are never rounded to TF32."""
    if INTERPRETED:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, acc, input_precision="ieee")


@triton.jit
def narrow(x, dtype: tl.constexpr):
    """x float32 in another type, rounded to nearest; the interpreter cuts bfloat16 off."""
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
    """(y + x) * (sigmoid(y) - 1/2)"""
    return (y + x) * (sigmoid(y) - 0.5)
