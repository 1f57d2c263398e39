// Row-streaming 3x3 convolutions of few channels, one to three fused in one kernel.
//
// A thread block streams a strip of the image, one row at a time. Its warps are divided among the
// convolutions; each warp holds the weights of 8 to 24 output channels in registers and processes
// 16 to 64 columns of every row. An input row is accumulated into the three output rows that it
// contributes to, whose sums are all in registers, so it is read from shared memory once per kernel
// column, not once per tap. Rows pass from one convolution to the next through ring buffers of 3
// rows in shared memory, [slot][plane][column][8 channels]. The 16 bytes of a pixel are one row of
// an ldmatrix, so any shift is aligned and free of bank conflicts. Only the first input, the last
// output and its gate are in global memory.
//
// Every convolution computes the same columns, numbered from the left of the strip. Only the first
// one has input for the neighbouring columns: each further convolution invalidates one more column
// on either side, and these are not stored. Pixels outside the image are 0 in every ring, because
// each convolution zero-pads its own input.
#pragma once

#include "common/convolve.cuh"
#include "common/cut.cuh"

namespace espan::rows {

template <int CHANNELS, int CONVS, Layout LAYOUT, bool FP16_ACC>
__global__ void __launch_bounds__(Strip<CHANNELS, CONVS, FP16_ACC>::THREADS, 1)
rows_kernel(Work work) {
    using S = Strip<CHANNELS, CONVS, FP16_ACC>;
    SHARED(uint32_t, rings, CONVS * S::RING);
    SHARED(float2, biases, CONVS * CHANNELS / 2);
    if (threadIdx.x < CONVS * CHANNELS / 2) {
        biases.store(threadIdx.x, work.biases.load(threadIdx.x));
    }
    bar_sync(ALL, S::THREADS);
    const int conv = warp_uniform(threadIdx.x / S::CONV_THREADS);
    if (conv == 0) {
        Convolution<CHANNELS, CONVS, 0, LAYOUT, FP16_ACC>(work, rings, biases).run();
    } else if constexpr (CONVS == 2) {
        Convolution<CHANNELS, CONVS, 1, LAYOUT, FP16_ACC>(work, rings, biases).run();
    } else if constexpr (CONVS == 3) {
        if (conv == 1) {
            Convolution<CHANNELS, CONVS, 1, LAYOUT, FP16_ACC>(work, rings, biases).run();
        } else {
            Convolution<CHANNELS, CONVS, 2, LAYOUT, FP16_ACC>(work, rings, biases).run();
        }
    }
}

// Launches a kernel of CONVS convolutions, whose weights and biases are contiguous; the epilogue
// and the gate belong to the last one.
template <int CHANNELS, int CONVS, Layout LAYOUT, bool FP16_ACC>
cudaError_t launch_as(const Conv3x3Params& p, cudaStream_t stream) {
    using S = Strip<CHANNELS, CONVS, FP16_ACC>;
    int64_t processors = 0;
    if (const auto error = count_processors(processors)) return error;
    const Cut parts = cut(p.n, p.h, p.w, S::USEFUL, CONVS, processors);
    if (!fits(p.h, p.w, parts)) return cudaErrorInvalidValue;
    const int64_t words = p.n * p.h * p.w * S::PLANES * WORDS;
    const Work work{
        {static_cast<const uint32_t*>(p.x), words},
        {static_cast<const uint32_t*>(p.weights), CONVS * S::PLANES * 9 * S::PLANES * 32},
        {static_cast<const float2*>(p.biases), CONVS * CHANNELS / 2},
        {static_cast<const uint32_t*>(p.gate), words},
        {static_cast<uint32_t*>(p.out), words},
        {parts.height, parts.width, p.h * p.w},
        parts.segment,
        parts.strips,
        parts.segments,
        int(parts.items),
        p.epilogue};
    return launch(
        rows_kernel<CHANNELS, CONVS, LAYOUT, FP16_ACC>, std::min(parts.items, processors),
        S::THREADS, stream, work);
}

// Launches the kernel for this layout and accumulation type, if it exists.
template <int CHANNELS, int CONVS>
cudaError_t launch_in_layout(const Conv3x3Params& p, cudaStream_t stream) {
    if (p.fp16_accumulation) {
        if constexpr (CHANNELS > 24) {
            if (p.layout == Layout::nc8hw8) {
                return launch_as<CHANNELS, CONVS, Layout::nc8hw8, true>(p, stream);
            }
        }
        return cudaErrorInvalidValue;
    }
    return p.layout == Layout::channels_last
               ? launch_as<CHANNELS, CONVS, Layout::channels_last, false>(p, stream)
               : launch_as<CHANNELS, CONVS, Layout::nc8hw8, false>(p, stream);
}

}  // namespace espan::rows
