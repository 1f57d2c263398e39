// Launches the kernels of rows.cuh.
#pragma once

#include "wgmma/rows.cuh"

namespace espan::wgmma_rows {

// The arguments of a launch; pointers as in launchers.h.
struct Rows3x3 {
    const void *x, *weights, *biases, *gate;
    void* out;
    int64_t n, h, w;
    bool overlap;
};

template <int PLANES, int CONVS, Epilogue EPILOGUE>
cudaError_t launch(const Rows3x3& p, cudaStream_t stream) {
    using S = Strip<PLANES, CONVS>;
    int64_t processors = 0;
    if (const auto error = count_processors(processors)) return error;
    const int64_t blocks = processors * S::BLOCKS;
    const Cut parts = cut(p.n, p.h, p.w, S::USEFUL, CONVS, blocks);
    if (!fits(p.h, p.w, parts)) return cudaErrorInvalidValue;
    const int64_t pixels = p.n * p.h * p.w * PLANES;
    const Work work{
        {static_cast<const uint4*>(p.x), pixels},
        {static_cast<const uint4*>(p.weights), CONVS * S::W::BYTES / 16},
        {static_cast<const float2*>(p.biases), CONVS * PLANES * 4},
        {static_cast<const uint4*>(p.gate), pixels},
        {static_cast<uint4*>(p.out), pixels},
        {p.h * p.w, parts}};
    return launch_overlapping(
        wgmma_kernel<PLANES, CONVS, EPILOGUE>, std::min(parts.items, blocks), S::THREADS, S::BYTES,
        p.overlap, stream, work);
}

}  // namespace espan::wgmma_rows
