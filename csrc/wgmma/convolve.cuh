// One 3x3 convolution of a kernel, computed by a warpgroup: how it processes each input row.
//
// A row is multiplied into the three output rows that it contributes to, whose channels lie side by
// side along N: one wgmma per kernel column and 16 input channels. While the products are computed,
// the previously finished row goes through its epilogue.
#pragma once

#include <type_traits>

#include "wgmma/strip.cuh"

namespace espan::wgmma_rows {

// Iterates over the input rows of all items of a block. Row i of an item finishes row i - 2 of the
// item's output.
struct Rows {
    const Cut& cut;
    int reach;  // input rows above an item and below it
    int64_t index;
    Item it;
    int i = 0;

    __device__ Rows(const Cut& cut, int reach)
        : cut(cut), reach(reach), index(blockIdx.x), it(item(cut, index)) {}

    __device__ bool any() const { return index < cut.items; }
    __device__ bool finishes() const { return i >= 2; }
    __device__ int finished_row() const { return it.top - reach + i - 1; }
    __device__ void next() {
        if (++i < it.rows + 2 * reach) return;
        i = 0;
        index += gridDim.x;
        it = item(cut, index);
    }
};

// The finished row passed to the epilogue.
struct Finished {
    bool any, begins_item;
    bool inside[2];  // whether the thread's pixels g and g + 8 are in the image
};

__device__ inline int warp_of_group() {
    return warp_uniform(threadIdx.x / 32 % WARPGROUP_WARPS);
}

// The offset of this lane's row of an 8x8 matrix, for the warp's 16 pixels of two planes.
__device__ inline int matrix_row(int pitch) {
    return lane_id() / 16 * pitch + (16 * warp_of_group() + lane_id() % 16) * PIXEL;
}

// Starts multiplying the input row at `row` of a ring into the output rows `acc`. The input row
// finishes output row o at phase (o + 1) % 3 and starts it at phase (o + 2) % 3.
template <int PHASE, class W, int COUNT>
__device__ inline void multiply(float (&acc)[COUNT], Address row, Address weights) {
    const uint64_t a = Matrix{row, PLANE}.descriptor();
    const uint64_t alone = Matrix{row, 0}.descriptor();  // an odd last plane as both halves of K
    const uint64_t b = Matrix{weights, W::HALF}.descriptor();
#pragma unroll
    for (int kx = 0; kx < TAPS; ++kx) {
#pragma unroll
        for (int step = 0; step < W::STEPS; ++step) {
            const int tap = (kx * W::STEPS + step) * 2 * W::HALF + W::shift(PHASE);
            const bool is_alone = 2 * step + 1 == W::PLANES;
            const int from = 2 * step * PLANE + kx * PIXEL;
            wgmma(acc, moved(is_alone ? alone : a, from), moved(b, tap));
        }
    }
}

// No products beyond the row's own.
struct NoExtra {
    __device__ void load(const Rows&, Address) {}
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
// and biases (OUT / 2 pairs) in global memory. store(sum, row) is the epilogue: sum[4 j ...] has
// channels 8 j to 8 j + 7 in wgmma's register layout.
template <class W, class In, class Extra, class Store>
__device__ inline void convolve_rows(
    const Cut& cut, Reach reach, In in, Address weights, Constant<const float2> biases,
    Extra& extra, Store store) {
    constexpr int SUMS = W::OUT_PLANES * 4;
    float bias[W::OUT_PLANES][2];
#pragma unroll
    for (int plane = 0; plane < W::OUT_PLANES; ++plane) {
        const float2 pair = biases.load(4 * plane + lane_id() % 4);
        bias[plane][0] = pair.x;
        bias[plane][1] = pair.y;
    }
    float acc[TAPS * SUMS], sum[SUMS];
#pragma unroll
    for (int i = 0; i < TAPS * SUMS; ++i) acc[i] = bias[i % SUMS / 4][i % 2];
#pragma unroll
    for (int i = 0; i < SUMS; ++i) sum[i] = 0;
    const int column = 16 * warp_of_group() + lane_id() / 4 - reach.halo;
    Rows rows(cut, reach.rows);
    Finished row{};
    // Sums are not reset between items: leftovers at an item's first two rows end up in rows that
    // are not stored.
    const auto advance = [&](auto phase) {
        constexpr int PHASE = decltype(phase)::value, DONE = (PHASE + 2) % TAPS;
        in.wait();
        extra.load(rows, in.data());
        hold(acc);
        wgmma_fence();
        multiply<PHASE, W>(acc, in.data(), weights);
        extra.multiply();
        wgmma_commit();
        if (row.any) store(sum, row);
        wgmma_wait<0>();
        hold(acc);
        in.free();
#pragma unroll
        for (int i = 0; i < SUMS; ++i) {
            take(sum[i], acc[DONE * SUMS + i], bias[i / 4][i % 2]);
        }
        extra.add(sum);
        row.any = rows.finishes();
        row.begins_item = rows.i == 2;
        const bool has_row = unsigned(rows.finished_row()) < unsigned(cut.height);
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            const int x = int(rows.it.strip) * reach.useful + column + 8 * i;
            row.inside[i] = has_row && unsigned(x) < unsigned(cut.width);
        }
        rows.next();
    };
    while (rows.any()) {
        advance(std::integral_constant<int, 0>());
        if (rows.any()) advance(std::integral_constant<int, 1>());
        if (rows.any()) advance(std::integral_constant<int, 2>());
    }
    if (row.any) store(sum, row);
}

}  // namespace espan::wgmma_rows
