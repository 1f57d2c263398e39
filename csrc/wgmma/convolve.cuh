// One 3x3 convolution of a kernel, computed by a warpgroup: how it processes each input row.
//
// A row is multiplied into the three output rows that it contributes to, whose channels lie side by
// side along N: one wgmma per kernel column and 16 input channels. While the products are computed,
// the previously finished row goes through its epilogue.
#pragma once

#include "wgmma/strip.cuh"

namespace espan::wgmma_rows {

// The finished row passed to the epilogue.
struct Finished {
    bool any;
    bool inside[2];  // whether the thread's pixels g and g + 8 are in the image
};

__device__ inline int warp_of_group() {
    return warp_uniform(threadIdx.x / 32 % WARPGROUP_WARPS);
}

// The offset of this lane's row of an 8x8 matrix, for the warp's 16 pixels of two planes.
__device__ inline int matrix_row(int pitch) {
    return lane() / 16 * pitch + (16 * warp_of_group() + lane() % 16) * PIXEL;
}

// Starts multiplying the input row at `row` of a ring into the output rows `acc`, by the kernel
// rows that start at `weights`.
template <class W, int COUNT>
__device__ inline void multiply(float (&acc)[COUNT], Address row, Address weights) {
    const uint64_t a = Matrix{row, PLANE}.descriptor();
    const uint64_t alone = Matrix{row, 0}.descriptor();  // an odd last plane as both halves of K
    const uint64_t b = Matrix{weights, W::HALF}.descriptor();
#pragma unroll
    for (int kx = 0; kx < TAPS; ++kx) {
#pragma unroll
        for (int step = 0; step < W::STEPS; ++step) {
            const int tap = (kx * W::STEPS + step) * 2 * W::HALF;
            const bool is_alone = 2 * step + 1 == W::PLANES;
            const int from = 2 * step * PLANE + kx * PIXEL;
            wgmma(acc, moved(is_alone ? alone : a, from), moved(b, tap));
        }
    }
}

// No products beyond the row's own.
struct NoExtra {
    __device__ void load(bool /*finishes*/, Address) {}
    __device__ void multiply() {}
    template <int SUMS>
    __device__ void add(float (&)[SUMS]) {}
};

// A convolution's extent: stored columns of a strip, columns computed left of them, and input rows
// above an item and below it.
struct Reach {
    int useful, halo, rows;
};

// Computes all rows of a convolution from ring `in`, with weights W at `weights` in shared memory
// and biases (OUT / 2 pairs) in global memory. Input row i of an item finishes row i - 2 of its
// output, whose sums go to `sink` one row later, in the layout of products.cuh.
//
// The loop is not unrolled by phase: the roles of a block run different code at the same time,
// and would miss the instruction cache.
template <class W, class In, class Extra, class Sink>
__device__ inline void convolve_rows(
    const Cut& cut, Reach reach, In in, Address weights, Constant<const float2> biases,
    Extra& extra, Sink& sink) {
    constexpr int SUMS = W::OUT_PLANES * 4;
    float bias[W::OUT_PLANES][2];
#pragma unroll
    for (int plane = 0; plane < W::OUT_PLANES; ++plane) {
        const float2 pair = biases.load(4 * plane + lane() % 4);
        bias[plane][0] = pair.x;
        bias[plane][1] = pair.y;
    }
    float acc[TAPS * SUMS], sum[SUMS];
#pragma unroll
    for (int i = 0; i < TAPS * SUMS; ++i) acc[i] = bias[i % SUMS / 4][i % 2];
#pragma unroll
    for (int i = 0; i < SUMS; ++i) sum[i] = 0;
    const int column = 16 * warp_of_group() + lane() / 4 - reach.halo;
    // The output row that the next input row finishes, of the three in progress.
    int done = TAPS - 1;
    Finished row{};
#pragma unroll 1
    for (int64_t k = blockIdx.x; k < cut.items; k += gridDim.x) {
        const Item it = item(cut, k);
        const int x = int(it.strip) * reach.useful + column, rows = it.rows + 2 * reach.rows;
        // Sums are not reset between items: leftovers at an item's first two rows end up in rows
        // that are not stored.
#pragma unroll 1
        for (int i = 0; i < rows; ++i) {
            const bool finishes = i >= TAPS - 1;
            in.wait();
            // The last row of the previous item has been stored.
            if (i == 1) sink.begin(it);
            if (row.any) sink.prepare();
            hold(acc);
            wgmma_fence();
            multiply<W>(acc, in.data(), weights + W::shift(done));
            extra.load(finishes, in.data());
            extra.multiply();
            wgmma_commit();
            if (row.any) sink.store(sum, row);
            wgmma_wait<0>();
            hold(acc);
            in.free();
#pragma unroll
            for (int slot = 0; slot < TAPS; ++slot) {
                if (slot != done) continue;
#pragma unroll
                for (int j = 0; j < SUMS; ++j) {
                    take(sum[j], acc[slot * SUMS + j], bias[j / 4][j % 2]);
                }
            }
            done = done == TAPS - 1 ? 0 : done + 1;
            extra.add(sum);
            if (row.any) sink.publish();
            row.any = finishes;
            const bool has_row = unsigned(it.top - reach.rows + i - 1) < unsigned(cut.height);
#pragma unroll
            for (int side = 0; side < 2; ++side) {
                row.inside[side] = has_row && unsigned(x + 8 * side) < unsigned(cut.width);
            }
        }
    }
    if (row.any) {
        sink.prepare();
        sink.store(sum, row);
        sink.publish();
    }
}

}  // namespace espan::wgmma_rows
