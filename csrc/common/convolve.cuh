// One 3x3 convolution of a kernel in rows.cuh: how its warps process each input row.
//
// The first convolution loads the row into its ring buffer in shared memory; for the others the
// previous convolution has stored it there. Then the warps accumulate its products and store the
// output row that it completes.
#pragma once

#include "common/strip.cuh"

namespace espan::rows {

// One lane's view of an item, a segment of a strip.
struct Place {
    int rows, top;      // input rows to read, and the image row of the first
    int g, q;           // lane / 4 and lane % 4, as in fragments
    int load_at;        // image column of the lane's first pixel of x
    int64_t load_word;  // that pixel in the next row to load
    int at;             // the lane's first output column, relative to the item's first
    unsigned extent;    // output columns of the item
    int64_t row;        // words from one row of x or `out` to the next
    int64_t out_word;   // column `at` in the next row of `out` and of the gate
};

// Convolution CONV of a kernel.
template <int CHANNELS, int CONVS, int CONV, Layout LAYOUT, bool FP16_ACC>
struct Convolution {
    using S = Strip<CHANNELS, CONVS, FP16_ACC>;
    using To = Steps<S::PLANES, LAYOUT>;
    static constexpr int PLANES = S::PLANES, OUT_PLANES = S::OUT_PLANES, TILES = S::TILES;
    static constexpr int STEPS = (PLANES + 1) / 2;      // of 16 input channels
    static constexpr int CHAIN = FP16_ACC ? 2 : STEPS;  // steps, with 3 columns each, per sum
    static constexpr bool IS_FIRST = CONV == 0, IS_LAST = CONV == CONVS - 1;
    static constexpr int REACH = CONVS - CONV;  // input rows above an item and below it
    // Whether to load the gate of a row before its last products; kernels of 2 or 3 convolutions
    // lack the registers.
    static constexpr bool GATE_EARLY = CONVS == 1;
    using Sums = float[TILES][OUT_PLANES][4];      // of a row: [16 pixels][output plane][fragment]
    using Gate = uint32_t[TILES][2 * OUT_PLANES];  // the lane's pairs of a row

    const Work& work;
    Shared<uint32_t> rings;  // (CONVS rings, SLOTS, P, RING_COLUMNS, 8) halves
    Shared<float2> biases;   // (CONVS, C / 2)
    int warp;                // index among the warps of this convolution
    int first_out, left;     // the warp's first output plane and first column
    int a_word;              // in the input ring: the lane's row of the first ldmatrix
    uint32_t w[OUT_PLANES][9][PLANES];  // weights: [output plane][tap][input plane]

    __device__ Convolution(const Work& work, Shared<uint32_t> rings, Shared<float2> biases)
        : work(work), rings(rings), biases(biases) {
        warp = warp_uniform(threadIdx.x / 32 % S::CONV_WARPS);
        first_out = warp % S::SHARES * OUT_PLANES;
        left = warp / S::SHARES * S::WARP_COLUMNS;
#pragma unroll
        for (int i = 0; i < OUT_PLANES * 9 * PLANES; ++i) {
            const int row = (CONV * PLANES + first_out) * 9 * PLANES + i;
            w[i / PLANES / 9][i / PLANES % 9][i % PLANES] = work.weights.load(row * 32 + lane_id());
        }
        // Pixel lane % 16 of plane lane / 16, one of the two planes of 16 channels.
        a_word = CONV * S::RING + lane_id() / 16 * S::PLANE + (left + lane_id() % 16) * WORDS;
    }

    __device__ Place place(int item) const {
        const Images& size = work.size;
        const unsigned down = unsigned(item) / work.strips, n = down / work.segments;
        const int y0 = (down - n * work.segments) * work.segment;
        const int x0 = (item - down * work.strips) * S::USEFUL - (CONVS - 1);  // of column 0
        // Valid columns: the strip's in memory, or the image's in a ring.
        const int from = IS_LAST ? x0 + CONVS - 1 : 0;
        Place p;
        p.row = int64_t(size.width) * To::PIXEL;
        p.rows = min(work.segment, size.height - y0) + 2 * REACH;
        p.top = y0 - REACH;
        // Recomputed for each item, because the loop over rows has no registers to spare.
        p.g = lane_id() / 4;
        p.q = lane_id() % 4;
        p.load_at = x0 - 1 + 8 * warp + p.g;
        p.load_word = To::start(size, n, p.q) + p.top * p.row + int64_t(p.load_at) * To::PIXEL;
        p.at = x0 + left + p.g - from;
        p.extent = (IS_LAST ? min(from + S::USEFUL, size.width) : size.width) - from;
        p.out_word =
            To::start(size, n, first_out) + y0 * p.row + int64_t(from + p.at) * To::PIXEL + p.q;
        return p;
    }

    // Starts copying input row i of the item to `slot` of ring 0; zeros outside the image.
    __device__ void load(Place& p, int i, int slot) const {
        constexpr int STEP = 8 * S::CONV_WARPS;
        const Images& size = work.size;
        const bool has_row = unsigned(p.top + i) < unsigned(size.height);
#pragma unroll
        for (int j = 0; j < S::RING_COLUMNS; j += STEP) {
            const int c = 8 * warp + p.g + j;
            if (j + STEP > S::RING_COLUMNS && c >= S::RING_COLUMNS) break;
            const int word = slot * S::SLOT + p.q * S::PLANE + c * WORDS;
            const bool inside = has_row && unsigned(p.load_at + j) < unsigned(size.width);
#pragma unroll
            for (int k = 0; k < PLANES; k += 4) {
                if (k + 4 > PLANES && p.q + k >= PLANES) break;
                const int64_t from = p.load_word + j * To::PIXEL + k * To::plane(size);
                cp_async16(rings, word + k * S::PLANE, work.x, from, inside);
            }
        }
        p.load_word += p.row;
    }

    // Adds the products of an input row, starting at `row` of a ring, to the sums of the three
    // output rows that it contributes to, as their first, second and third row.
    __device__ void accumulate(int row, Sums& opened, Sums& middle, Sums& finished) const {
#pragma unroll
        for (int t = 0; t < TILES; ++t) {
#pragma unroll
            for (int first = 0; first < STEPS; first += CHAIN) {
                const int steps = min(CHAIN, STEPS - first);
                uint32_t halves[3][OUT_PLANES][2] = {};  // [kernel row][output plane]
#pragma unroll
                for (int step = 0; step < 3 * steps; ++step) {
                    const int kx = step / steps, k = 2 * (first + step % steps);
                    const bool pair = k + 1 < PLANES;  // planes k and k + 1, or k alone
                    const int word = row + k * S::PLANE + (16 * t + kx) * WORDS;
                    uint32_t a[4];
                    pair ? ldmatrix_x4(a, rings, word) : ldmatrix_x2(a, rings, word);
#pragma unroll
                    for (int c = 0; c < OUT_PLANES; ++c) {
                        const auto tap = [&](int ky, auto& sum) {
                            const uint32_t* b = &w[c][3 * ky + kx][k];
                            pair ? mma_m16n8k16(sum, a, b[0], b[1]) : mma_m16n8k8(sum, a, b[0]);
                        };
                        if constexpr (FP16_ACC) {
                            for (int ky = 0; ky < 3; ++ky) tap(ky, halves[ky][c]);
                        } else {
                            tap(0, opened[t][c]);
                            tap(1, middle[t][c]);
                            tap(2, finished[t][c]);
                        }
                    }
                }
#pragma unroll
                for (int c = 0; FP16_ACC && c < OUT_PLANES; ++c) {
                    add(opened[t][c], halves[0][c]);
                    add(middle[t][c], halves[1][c]);
                    add(finished[t][c], halves[2][c]);
                }
            }
        }
    }

    // A lane holds pairs: channels 2 q and 2 q + 1 of pixel g, for each 8 pixels and each plane.
    // Returns the pair of the j-th 8 pixels and plane p.
    __device__ static const float* pair_of(const Sums& sums, int j, int p) {
        return &sums[j / 2][p][j % 2 * 2];
    }

    // The position of pair k of tile t in the next row of `out`, and whether it is in the item.
    __device__ int64_t word_of(const Place& p, int t, int k) const {
        return p.out_word + k % OUT_PLANES * To::plane(work.size) +
               (16 * t + k / OUT_PLANES * 8) * To::PIXEL;
    }
    __device__ static bool is_inside(const Place& p, int t, int k) {
        return unsigned(p.at + 16 * t + k / OUT_PLANES * 8) < p.extent;
    }

    __device__ bool has_gate() const {
        return IS_LAST && (CONVS > 1 || work.epilogue == Epilogue::gate);
    }

    // Loads the gate of tile t for the next row of `out`.
    __device__ void load(const Place& p, int t, Gate& gate) const {
#pragma unroll
        for (int j = 0; j < 2 * OUT_PLANES; ++j) {
            if (is_inside(p, t, j)) gate[t][j] = work.gate.load(word_of(p, t, j));
        }
    }

    // Applies EPILOGUE to a finished row and stores it in `out`.
    template <Epilogue EPILOGUE>
    __device__ void store_out(const Place& p, Gate& gate, const Sums& sums) const {
#pragma unroll
        for (int t = 0; t < TILES; ++t) {
            if (EPILOGUE == Epilogue::gate && !GATE_EARLY) load(p, t, gate);
#pragma unroll
            for (int j = 0; j < 2 * OUT_PLANES; ++j) {
                const float* sum = pair_of(sums, 2 * t + j / OUT_PLANES, j % OUT_PLANES);
                const uint32_t pair = finish<EPILOGUE>(gate[t][j], sum[0], sum[1]);
                if (is_inside(p, t, j)) work.out.store(word_of(p, t, j), pair);
            }
        }
    }

    // Applies SiLU to finished row i - 1 and stores it in `slot` of the next convolution's ring.
    __device__ void store_hidden(const Place& p, int i, int slot, const Sums& sums) const {
        // The lane's pair of the first pixel and plane; column c of the strip is stored at c + 1.
        const int d_word = (CONV + 1) * S::RING + first_out * S::PLANE +
                           (left + 1 + p.g) * WORDS + p.q;
        // Computed before the slot is free, and without branches, so that the pairs overlap.
        uint32_t pairs[2 * TILES][OUT_PLANES];
        const bool has_row = unsigned(p.top + i - 1) < unsigned(work.size.height);
#pragma unroll
        for (int j = 0; j < 2 * TILES * OUT_PLANES; ++j) {
            const int eight = j / OUT_PLANES, k = j % OUT_PLANES;
            const bool inside = has_row && unsigned(p.at + 8 * eight) < p.extent;
            const float* sum = pair_of(sums, eight, k);
            const uint32_t pair = finish<Epilogue::silu>(0, sum[0], sum[1]);
            pairs[eight][k] = inside ? pair : 0;
        }
        bar_sync(empty(CONV + 1, slot), 2 * S::CONV_THREADS);
#pragma unroll
        for (int j = 0; j < 2 * TILES * OUT_PLANES; ++j) {
            const int eight = j / OUT_PLANES, k = j % OUT_PLANES;
            const int word = d_word + slot * S::SLOT + 8 * eight * WORDS;
            rings.store(word + k * S::PLANE, pairs[eight][k]);
        }
        bar_arrive(full(CONV + 1, slot), 2 * S::CONV_THREADS);
    }

    // Stores row i - 1, which input row i has completed. Branches on the epilogue outside the loops
    // over pixels.
    __device__ void store(
        Place& p, int i, int slot, Gate& gate, const Sums& sums) const {
        if constexpr (!IS_LAST) {
            store_hidden(p, i, slot, sums);
        } else {
            if (has_gate()) {
                store_out<Epilogue::gate>(p, gate, sums);
            } else if (work.epilogue == Epilogue::silu) {
                store_out<Epilogue::silu>(p, gate, sums);
            } else {
                store_out<Epilogue::none>(p, gate, sums);
            }
            p.out_word += p.row;
        }
    }

    // Starts an output row: initialises its sums with the biases of the lane's channels.
    __device__ void open(const Place& p, Sums& sums) const {
        const int bias_at = (CONV * PLANES + first_out) * 4 + p.q;
#pragma unroll
        for (int c = 0; c < OUT_PLANES; ++c) {
            const float2 bias = biases.load(bias_at + 4 * c);
#pragma unroll
            for (int j = 0; j < 4 * TILES; ++j) sums[j / 4][c][j % 4] = j % 2 ? bias.y : bias.x;
        }
    }

    // Computes all rows of an item.
    __device__ void convolve(Place p) const {
        if constexpr (IS_FIRST) {
            // All warps have read the last rows of the previous item.
            bar_sync(LOADED, S::CONV_THREADS);
            load(p, 0, 0);
            cp_async_commit();
            load(p, 1, 1);
            cp_async_commit();
        }
        Sums acc[SLOTS] = {};  // of the rows in progress
        for (int start = 0; start < p.rows; start += SLOTS) {
#pragma unroll
            for (int u = 0; u < SLOTS; ++u) {
                // Input row i is in slot u. It starts output row i + 1, in acc[u], and finishes
                // row i - 1, which was started two steps ago.
                const int i = start + u;
                if (i >= p.rows) break;
                const int finished = (u + 1) % SLOTS, middle = (u + 2) % SLOTS;
                // acc[u] is free; load its biases and the gate while the row arrives.
                open(p, acc[u]);
                Gate gate;
#pragma unroll
                for (int t = 0; t < TILES && GATE_EARLY && i >= 2 && has_gate(); ++t) {
                    load(p, t, gate);
                }
                if constexpr (IS_FIRST) {
                    cp_async_wait<1>();
                    bar_sync(LOADED, S::CONV_THREADS);
                    if (i + 2 < p.rows) load(p, i + 2, middle);
                    cp_async_commit();
                } else {
                    bar_sync(full(CONV, u), 2 * S::CONV_THREADS);
                }
                accumulate(a_word + u * S::SLOT, acc[u], acc[middle], acc[finished]);
                if constexpr (!IS_FIRST) bar_arrive(empty(CONV, u), 2 * S::CONV_THREADS);
                if (i >= 2) store(p, i, finished, gate, acc[finished]);
            }
        }
    }

    // Processes all items of the block. Marks all slots of the input ring as empty first; at the
    // end waits until the next convolution has emptied its ring for the last time.
    __device__ void run() const {
        for (int slot = 0; slot < SLOTS && !IS_FIRST; ++slot) {
            bar_arrive(empty(CONV, slot), 2 * S::CONV_THREADS);
        }
        for (int item = blockIdx.x; item < work.items; item += gridDim.x) convolve(place(item));
        for (int slot = 0; slot < SLOTS && !IS_LAST; ++slot) {
            bar_sync(empty(CONV + 1, slot), 2 * S::CONV_THREADS);
        }
    }
};

}  // namespace espan::rows
