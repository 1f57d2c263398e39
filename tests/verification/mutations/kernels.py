"""Bugs in Triton's kernels, each with the fastest test that finds it. Those in csrc are planted by
the tests of the host build themselves."""

from tests.verification.mutations import Mutation

CONV = "espan_kernels/conv3x3/kernel_triton.py"
HEAD = "espan_kernels/conv9x9_head/kernel_triton.py"
TAIL = "espan_kernels/tail/kernel_triton.py"
SPAB = "espan_kernels/spab/kernel_triton.py"
GATE = "espan_kernels/span_gate/kernel_triton.py"
DCT = "espan_kernels/dct2d/kernel_triton.py"
MATH = "espan_kernels/triton_math.py"


def exact(name: str, i: int = 0, dtype: str = "float32") -> str:
    """The test of whole numbers through an op's Triton kernel."""
    test = "tests/kernels/test_exact.py::test_whole_numbers_are_exact"
    return f"{test}[{name}-{i}-triton-torch.{dtype}]"


FAR = "tests/kernels/test_huge.py::test_strides_past_2_to_the_31_in_triton"
LEVELS = (
    "tests/kernels/test_tail.py::TestKernel::test_agrees"
    "[float32-(1, 32, [(3, 1), (32, 1), (32, 1)], 4, 5, 6, False, True)]"
)

KERNELS = [
    Mutation(promise, file, old, new, test)
    for promise, file, old, new, test in [
        (
            "rows below the image are zeros",
            CONV,
            "(yy >= 0) & (yy < H) & (xx >= 0)",
            "(yy >= 0) & (xx >= 0)",
            exact("conv3x3"),
        ),
        (
            "columns beside the image are zeros",
            CONV,
            "& (xx < W)\n        b_x = tl.load(",
            "& (xx <= W)\n        b_x = tl.load(",
            exact("conv3x3"),
        ),
        (
            "taps are at the right place",
            CONV,
            "xx = x + kx - KERNEL // 2",
            "xx = x + kx - KERNEL // 2 + 1",
            exact("conv3x3"),
        ),
        (
            "channels beyond the last are not read",
            CONV,
            "mask=inside[:, None] & (o_in < CIN)[None, :]",
            "mask=inside[:, None] & (o_in < CIN + 1)[None, :]",
            exact("conv3x3"),
        ),
        (
            "the bias of every channel is added",
            CONV,
            "mask=o_out < COUT, other=0)\n    return acc + bias",
            "mask=o_out < COUT - 1, other=0)\n    return acc + bias",
            exact("conv3x3"),
        ),
        (
            "nothing is written beside the image",
            CONV,
            "inside = ((y < H) & (x < W))[:, None]",
            "inside = ((y < H) & (x <= W))[:, None]",
            exact("conv3x3"),
        ),
        (
            "columns past 2^31 elements",
            CONV,
            "if INT64:",
            "if False:",
            FAR,
        ),
        (
            "every image of a batch",
            CONV,
            "return n.to(tl.int64), y.to(tl.int64), x",
            "return (n * 0).to(tl.int64), y.to(tl.int64), x",
            exact("conv3x3"),
        ),
        ("the gate's sum", MATH, "return (y + x) *", "return (y - x) *", exact("span_gate")),
        (
            "bfloat16 is rounded to the nearest",
            MATH,
            "bits += 0x7FFF + ((bits >> 16) & 1)",
            "bits += 0",
            "tests/kernels/test_exact.py::test_results_are_rounded_to_the_nearest",
        ),
        (
            "a flat pass ends where its tensor does",
            GATE,
            "inside = o < size\n    x = tl.load(x_ptr + o, mask=inside).to(tl.float32)\n"
            "    y = tl.load(y_ptr + o, mask=inside).to(tl.float32)\n    tl.store",
            "inside = o <= size\n    x = tl.load(x_ptr + o, mask=inside).to(tl.float32)\n"
            "    y = tl.load(y_ptr + o, mask=inside).to(tl.float32)\n    tl.store",
            exact("span_gate"),
        ),
        ("the head's rows", HEAD, "yy = y + ky - 4", "yy = y + ky - 3", exact("conv9x9_head")),
        (
            "rows above the image are zeros to the head",
            HEAD,
            "mask=((yy >= 0) & (yy < H))[:, None]",
            "mask=(yy < H)[:, None]",
            exact("conv9x9_head"),
        ),
        (
            "white is 255",
            HEAD,
            "b_x.to(tl.float32) / 255",
            "b_x.to(tl.float32) / 256",
            "tests/kernels/test_conv9x9_head.py::TestKernel::"
            "test_agrees[float32-(1, 32, 20, 24, True)]",
        ),
        ("colours far apart", HEAD, "colour.to(tl.int64) *", "colour *", FAR),
        (
            "the pixel shuffle's rows",
            TAIL,
            "o_far // SCALE % SCALE * out_stride[2]",
            "o_far % SCALE * out_stride[2]",
            exact("tail"),
        ),
        (
            "pixels far apart",
            TAIL,
            "needs_int64(middle, out)",
            "needs_int64()",
            FAR,
        ),
        (
            "levels are rounded",
            TAIL,
            "acc = (acc * 255.0 + 12582912.0) - 12582912.0",
            "acc = acc * 255.0",
            "tests/kernels/test_exact.py::test_levels_are_rounded_to_the_nearest",
        ),
        (
            "8 bits are clamped",
            TAIL,
            "clamp or uint8,",
            "clamp,",
            LEVELS,
        ),
        (
            "a block is gated by its input",
            SPAB,
            'conv3x3(h, weights[-1], biases[-1], "none", x)',
            'conv3x3(h, weights[-1], biases[-1], "none", h)',
            exact("spab", 1),
        ),
        (
            "the loss is not summed by tensor cores, which cut sums off",
            DCT,
            "return acc + dot(a_high, b_high, low * (1 / 2048))",
            "return dot(a_high, b_high, acc) + low * (1 / 2048)",
            "tests/kernels/test_dct2d.py::test_loss_is_exact_with_truncating_tensor_cores",
        ),
    ]
]
