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

enum class Dtype { float16, bfloat16, float32 };

// Where a picture's channels lie, in groups of 8: planes (N, C/8, H, W, 8), channels_last
// (N, H, W, C/8, 8).
enum class Layout { planes, channels_last };

// What follows a convolution z: z, silu(z), span_gate(gate, z).
enum class Epilogue { none, silu, gate };

// out = (y + x) * (sigmoid(y) - 1/2); `size` elements each.
cudaError_t span_gate(
    const void* x, const void* y, void* out, int64_t size, Dtype dtype, cudaStream_t stream);

// Gradients dx, dy of span_gate, given that of its output.
cudaError_t span_gate_backward(
    const void* grad, const void* x, const void* y, void* dx, void* dy, int64_t size, Dtype dtype,
    cudaStream_t stream);

// A block of 2 or 3 3x3 convolutions, SiLU between them, and span_gate(x, last); 32 channels of
// float16. weights and biases as `layout.fragments` and `layout.stacked` give them, those of the
// last convolution halved. x and out (n, h, w) pictures, both in `layout`.
cudaError_t spab(
    const void* x, const void* weights, const void* biases, void* out, int convs, int64_t n,
    int64_t h, int64_t w, Layout layout, cudaStream_t stream);

// A 3x3 convolution and its epilogue; as spab. `gate`, as x, is read for that epilogue alone, which
// wants weights and biases halved.
cudaError_t conv3x3(
    const void* x, const void* weights, const void* biases, const void* gate, void* out,
    Epilogue epilogue, int64_t n, int64_t h, int64_t w, Layout layout, cudaStream_t stream);

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
