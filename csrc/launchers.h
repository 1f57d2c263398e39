// The contract between Python and the kernels: one launcher per kernel.
//
// Pointers are to device memory of the current device and 16-byte aligned; sizes are checked by
// the caller. A launcher returns once the kernel is queued on `stream`; what it returns is not
// cudaSuccess if the launch failed, or if earlier work on the device did.
#pragma once

#include <cstdint>

#ifdef ESPAN_SHIM
#include "host/cuda.h"
#else
#include <cuda_runtime_api.h>
#endif

namespace espan {

enum class Dtype { float16, bfloat16, float32, uint8 };

// Where a picture's channels lie. Of features, in groups of 8: planes (N, C/8, H, W, 8),
// channels_last (N, H, W, C/8, 8). Of RGB: channels_last (N, H, W, 3), contiguous (N, 3, H, W).
enum class Layout { planes, channels_last, contiguous };

// What follows a convolution z: z, silu(z), span_gate(gate, z).
enum class Epilogue { none, silu, gate };

// out = (y + x) * (sigmoid(y) - 1/2); `size` elements each.
cudaError_t span_gate(
    const void* x, const void* y, void* out, int64_t size, Dtype dtype, cudaStream_t stream);

// Gradients dx, dy of span_gate, given that of its output.
cudaError_t span_gate_backward(
    const void* grad, const void* x, const void* y, void* dx, void* dy, int64_t size, Dtype dtype,
    cudaStream_t stream);

// A block of 2 or 3 3x3 convolutions, SiLU between them, and span_gate(x, last); float16, of 24,
// 32, 40, 48, 56 or 64 channels. weights (convs, ...) as `layout.fragments` gives them, biases
// (convs, channels) floats, those of the last convolution halved. x and out (n, h, w) pictures,
// both in `layout`, and so past 32 channels `scratch`, which is overwritten.
cudaError_t spab(
    const void* x, const void* weights, const void* biases, void* scratch, void* out, int convs,
    int channels, int64_t n, int64_t h, int64_t w, Layout layout, bool half_sums,
    cudaStream_t stream);

// A 3x3 convolution and its epilogue; as spab. `gate`, as x, is read for that epilogue alone, which
// wants weights and biases halved.
cudaError_t conv3x3(
    const void* x, const void* weights, const void* biases, const void* gate, void* out,
    Epilogue epilogue, int channels, int64_t n, int64_t h, int64_t w, Layout layout,
    bool half_sums, cudaStream_t stream);

// A 9x9 convolution of RGB into 32 channels of float16: x (n, h, w) pictures of float16 or uint8,
// which stands for x / 255, in `x_layout`; out in `layout`. weights as `conv9x9_head`'s pack gives
// them, biases floats.
cudaError_t conv9x9_head(
    const void* x, const void* weights, const void* biases, void* out, Dtype dtype, int64_t n,
    int64_t h, int64_t w, Layout x_layout, Layout layout, cudaStream_t stream);

// A sum of one 3x3 convolution, of x, and `singles` 1x1 ones, 2 or 3; inputs of 32 channels of
// float16 in `layout`. The sum is 3x3 convolved to 3 * scale^2 channels, which are the pixels of
// `out`, scale times as high and wide as the (n, h, w) inputs: float16, clamped to 0..1 if `clamp`,
// or uint8, clamped and rounded, in `out_layout`. Weights and biases as `tail`'s pack gives them.
// single2 is not read where there are two.
cudaError_t tail(
    const void* x, const void* single0, const void* single1, const void* single2,
    const void* weights, const void* single_weights, const void* up_weights, const void* biases,
    void* out, int singles, int scale, bool clamp, Dtype dtype, int64_t n, int64_t h, int64_t w,
    Layout layout, Layout out_layout, cudaStream_t stream);

// The L1 norm of the DCT of a - b, (strips, h, w) in blocks of (h, block_w), and its gradient.
// partial: numbers whose sum it is; gradient: like a, times `scale`, or null. across and down: the
// matrices of block_w and of h, as kernel_cuda.py packs them. `between` is overwritten.
// h and block_w 4 to 512, block_w a divisor of w, h * w below 2^30.
cudaError_t dct_l1(
    const void* a, const void* b, const void* across, const void* down, void* between,
    void* partial, void* gradient, int64_t strips, int64_t h, int64_t w, int64_t block_w,
    float scale, Dtype dtype, cudaStream_t stream);

// How many floats `between` and `partial` of dct_l1 are.
struct DctScratch {
    int64_t between, partial;
};
DctScratch dct_l1_scratch(int64_t strips, int64_t h, int64_t w, int64_t block_w);

}  // namespace espan
