// The interface between Python and the kernels: one launcher per op, with one parameter struct.
//
// Pointers are device pointers on the current device; arrays are dense and 16-byte aligned. The
// caller checks sizes. Launchers are asynchronous on `stream`; a returned error may stem from
// earlier work on the device.
//
// Shapes: a batch has n images of h x w pixels. C is the number of channels, a multiple of 8, and
// P = C / 8 the number of planes: a plane is a group of 8 channels. Weights are packed as fragments
// of mma.sync, in the order documented by `pack` in each op's kernel_cuda.py and in layout.py; the
// comment next to a pointer gives the packed shape.
#pragma once

#include <cstdint>

#ifdef ESPAN_SHIM
#include "host/cuda.h"
#else
#include <cuda_runtime_api.h>
#endif

namespace espan {

enum class Dtype { float16, bfloat16, float32, uint8 };

// The memory order of an image.
//                 feature maps       RGB
// nc8hw8          (n, P, h, w, 8)
// channels_last   (n, h, w, P, 8)    (n, h, w, 3)
// contiguous                         (n, 3, h, w)
enum class Layout { nc8hw8, channels_last, contiguous };

// The epilogue applied to a convolution's result z: z, silu(z), or span_gate(gate, z).
enum class Epilogue { none, silu, gate };

// out = (y + x) * (sigmoid(y) - 1/2), elementwise.
struct SpanGateParams {
    const void* x;  // (size), of `dtype`
    const void* y;  // (size), of `dtype`
    void* out;      // (size), of `dtype`
    int64_t size;
    Dtype dtype;  // float16, bfloat16 or float32
};
cudaError_t span_gate(const SpanGateParams& params, cudaStream_t stream);

// The gradients of span_gate with respect to x and y.
struct SpanGateBackwardParams {
    const void* grad;  // (size), of `dtype`: the gradient with respect to the output
    const void* x;     // (size), of `dtype`
    const void* y;     // (size), of `dtype`
    void* dx;          // (size), of `dtype`
    void* dy;          // (size), of `dtype`
    int64_t size;
    Dtype dtype;  // float16, bfloat16 or float32
};
cudaError_t span_gate_backward(const SpanGateBackwardParams& params, cudaStream_t stream);

// out = epilogue(conv3x3(x) + bias). SiLU and the gate are computed from half of the convolution,
// so weights and biases are halved unless the epilogue is `none`.
struct Conv3x3Params {
    const void* x;        // float16 feature maps in `layout`
    const void* weights;  // (P out, 9 taps, P in, 32 lanes, 2) float16
    const void* biases;   // (C) float32
    const void* gate;     // like x; null unless the epilogue is `gate`
    void* out;            // like x, not overlapping x or gate
    Epilogue epilogue;
    int channels;  // C: 24, 32, 40, 48, 56 or 64
    int64_t n, h, w;
    Layout layout;           // nc8hw8 or channels_last
    bool fp16_accumulation;  // of 96 products each, then in float32; needs nc8hw8 and C > 24
};
cudaError_t conv3x3(const Conv3x3Params& params, cudaStream_t stream);

// out = span_gate(x, y), where y is a chain of 2 or 3 3x3 convolutions of x with SiLU in between.
// The weights and biases are halved.
struct SpabParams {
    const void* x;        // float16 feature maps in `layout`
    const void* weights;  // (convs, P out, 9 taps, P in, 32 lanes, 2) float16
    const void* biases;   // (convs, C) float32
    void* scratch;        // like x, overwritten; null if C <= 32
    void* out;            // like x; x, scratch and out do not overlap
    int convs;            // 2 or 3
    int channels;         // C: 24, 32, 40, 48, 56 or 64
    int64_t n, h, w;
    Layout layout;           // nc8hw8 or channels_last
    bool fp16_accumulation;  // see Conv3x3Params
};
cudaError_t spab(const SpabParams& params, cudaStream_t stream);

// The same ops for sm_90a, whose tensor cores read operands from shared memory. wgmma_taps: weights
// (3 columns, ceil(C / 16), 2, 5 rows, P, 8, 8) float16, see layout.py. overlap: the kernel may
// start before the previous one on the stream ends, which must not write weights.

// conv3x3; the weights and biases are halved unless the epilogue is `none`.
struct Conv3x3WgmmaParams {
    const void* x;        // (n, P, h, w, 8) float16
    const void* weights;  // wgmma_taps
    const void* biases;   // (C) float32
    const void* gate;     // like x; null unless the epilogue is `gate`
    void* out;            // like x, not overlapping x or gate
    Epilogue epilogue;
    int channels;  // C: 32, 48, 56 or 64
    int64_t n, h, w;
    bool overlap;
};
cudaError_t conv3x3_wgmma(const Conv3x3WgmmaParams& params, cudaStream_t stream);

// spab; the weights and biases are halved.
struct SpabWgmmaParams {
    const void* x;        // (n, P, h, w, 8) float16
    const void* weights;  // (convs, wgmma_taps)
    const void* biases;   // (convs, C) float32
    void* scratch;        // like x, overwritten; null if C is 32
    void* out;            // like x; x, scratch and out do not overlap
    int convs;            // 2 or 3
    int channels;         // C: 32, 48, 56 or 64
    int64_t n, h, w;
    bool overlap;
};
cudaError_t spab_wgmma(const SpabWgmmaParams& params, cudaStream_t stream);

// out = conv9x9(x) + bias, from RGB to 32 channels.
struct Conv9x9HeadParams {
    const void* x;        // RGB in `x_layout`: float16, or uint8, read as x / 255
    const void* weights;  // (2 halves of the output channels, 9 rows, 2, 32 lanes, 8) float16
    const void* biases;   // (32) float32
    void* out;            // float16 feature maps in `layout`, 32 channels
    Dtype dtype;          // of x: float16 or uint8
    int64_t n, h, w;
    Layout x_layout;  // contiguous or channels_last
    Layout layout;    // nc8hw8 or channels_last
};
cudaError_t conv9x9_head(const Conv9x9HeadParams& params, cudaStream_t stream);

// out = pixel_shuffle(conv3x3(s)), s = conv3x3(x) + sum of conv1x1(single) + bias: from 32-channel
// feature maps to RGB, upscaled by `scale`. M = ceil(3 * scale^2 / 16).
struct TailParams {
    const void* x;                // float16 feature maps in `layout`, 32 channels
    const void* single[3];        // like x, the inputs of the 1x1 convolutions; single[2] null
                                  // if there are two
    const void* weights;          // of x: (2 halves of the outputs, 9 taps, 2, 32 lanes, 8) float16
    const void* single_weights;   // (singles, 2 halves of the outputs, 2, 32 lanes, 8) float16
    const void* up_weights;       // (2 halves of the outputs, 9 taps, M, 32 lanes, 8) float16
    const void* biases;           // (32 of s, then 16 M of the RGB channels) float32
    void* out;                    // (n, scale * h, scale * w) RGB in `out_layout`, of `dtype`
    int singles;                  // 2 or 3
    int scale;                    // 2, 3 or 4
    bool clamp;                   // clamps float16 to 0..1; uint8 is always clamped
    Dtype dtype;                  // of out: float16, or uint8 (255 * value, rounded)
    int64_t n, h, w;              // of the feature maps
    Layout layout;                // nc8hw8 or channels_last
    Layout out_layout;            // contiguous or channels_last
};
cudaError_t tail(const TailParams& params, cudaStream_t stream);

// conv9x9_head for sm_90a (see Conv3x3WgmmaParams).
struct Conv9x9HeadWgmmaParams {
    const void* x;        // RGB in `x_layout`: float16, or uint8, read as x / 255
    const void* weights;  // (2 groups of 16 columns, 2, 17 rows, 4 output planes, 8, 8) float16
    const void* biases;   // (32) float32
    void* out;            // (n, 4, h, w, 8) float16
    Dtype dtype;          // of x: float16 or uint8
    int64_t n, h, w;
    Layout x_layout;  // contiguous or channels_last
    bool overlap;
};
cudaError_t conv9x9_head_wgmma(const Conv9x9HeadWgmmaParams& params, cudaStream_t stream);

// tail for sm_90a (see Conv3x3WgmmaParams), which also checks the magnitude of its inputs.
struct TailWgmmaParams {
    const void* x;          // (n, 4, h, w, 8) float16
    const void* single[3];  // like x, the inputs of the 1x1 convolutions; single[2] null if there
                            // are two
    const void* weights;    // float16: wgmma_taps of x, then (singles, 2, 2, 4, 8, 8), then
                            // wgmma_taps of up for 2 M output planes
    const void* biases;     // (32 of s, then 16 M of the RGB channels) float32
    void* out;              // see TailParams
    void* trusted;          // (1) bool: set to false if an input value is not finite or its
                            // magnitude exceeds `limit`; null: no check
    int limit;              // the bits of a float16; -1: every input exceeds it
    int singles, scale;     // 2 or 3; 2, 3 or 4
    int last_planes;        // planes of the last single: 4, or 1 if there are 2 singles
    bool clamp;
    Dtype dtype;  // of out: float16 or uint8
    int64_t n, h, w;
    Layout out_layout;  // contiguous or channels_last
    bool overlap;
};
cudaError_t tail_wgmma(const TailWgmmaParams& params, cudaStream_t stream);

// The L1 norm of the DCT of a - b in blocks of h x block_w, and its gradient with respect to a.
// The DCT matrix of size m is (2: itself and its transpose, 2: even and odd coefficients,
// ceil(m / 32), 4 * ceil(m / 64), 32 lanes, 8) float16.
struct DctL1Params {
    const void* a;       // (strips, h, w), of `dtype`
    const void* b;       // (strips, h, w), of `dtype`
    const void* across;  // the matrix of block_w
    const void* down;    // the matrix of h
    void* between;       // (dct_l1_scratch().between) float32, overwritten
    void* partial;       // (dct_l1_scratch().partial) float32: their sum is the norm
    void* counts;        // (dct_l1_scratch().counts) int32, all 0
    void* gradient;      // (strips, h, w), of `dtype`, multiplied by `scale`; may be null
    int64_t strips, h, w;  // h from 4 to 512; h * w below 2^30
    int64_t block_w;       // a divisor of w, from 4 to 512
    float scale;
    Dtype dtype;  // float16, bfloat16 or float32
};
cudaError_t dct_l1(const DctL1Params& params, cudaStream_t stream);

// The number of elements of `between`, `partial` and `counts`.
struct DctScratch {
    int64_t between, partial, counts;
};
DctScratch dct_l1_scratch(int64_t strips, int64_t h, int64_t w, int64_t block_w);

}  // namespace espan
