// Convolutions of 32 channels, 3x3, that stream rows: one to three of them in one kernel.
//
// A block of threads walks down a strip of the picture, a row a step. Its warps are shared out
// among the convolutions; each holds the weights of 16 output channels in registers and takes 32
// columns of every row. A row of input goes into the three rows of output it reaches, whose sums
// are open in registers at the same time, so it is read from shared memory once per column of the
// kernel, not per tap. Rows pass from one convolution to the next through rings of 3 rows: shared
// memory [slot][plane][column][8 channels], a pixel's 16 bytes the row of an ldmatrix, so that any
// shift is aligned and free of bank conflicts. Only the first input and the last output, and what
// gates it, touch memory.
//
// Every convolution computes the same columns, numbered from the strip's left. What lies beside
// them is there for the first one alone: each that follows gets one more column wrong at both
// sides, and these are not stored. Pixels outside of the picture are 0 in every ring, as each
// convolution pads its own input.
#pragma once

#include <algorithm>

#include "strip.cuh"

namespace espan::rows {

struct Work {
    Global<const uint32_t> x;     // (N, 4, H, W, 8) or (N, H, W, 4, 8) halves
    Global<const uint4> weights;  // (convolutions, 2, 9, 2, 32 lanes, 8): layout.fragments
    Global<const float2> biases;  // (convolutions, 32 channels)
    Global<const uint32_t> gate;  // as x; read if that is the epilogue
    Global<uint32_t> out;         // as x
    Pictures size;
    int segment;  // rows of an item
    unsigned strips, segments;  // items across and down a picture
    int items;
};

// What the warps of convolution CONV do; after the last comes EPILOGUE.
template <int CONVS, int CONV, Epilogue EPILOGUE, Layout LAYOUT>
__device__ inline void convolve(
    const Work& work, Shared<uint32_t> rings, Shared<float2> biases) {
    using S = Strip<CONVS>;
    using To = Steps<LAYOUT>;
    constexpr bool IS_FIRST = CONV == 0, IS_LAST = CONV == CONVS - 1;
    constexpr int REACH = CONVS - CONV;  // rows beyond an item's that it reads
    const Pictures& size = work.size;
    const int warp = warp_uniform(threadIdx.x / 32 % S::CONV_WARPS);
    const int half = warp % 2;                 // output channels from 16 * half on
    const int left = warp / 2 * WARP_COLUMNS;  // columns from left on

    uint4 w[9][2];  // [tap][8 channels out]: b0, b1 of input channels 0..15, then of 16..31
#pragma unroll
    for (int i = 0; i < 18; ++i) {
        w[i / 2][i % 2] = work.weights.load(((CONV * 2 + half) * 18 + i) * 32 + lane_id());
    }
    // This lane's row of an ldmatrix: pixel lane % 16, plane lane / 16 of the two of 16 channels.
    const int a_word =
        CONV * S::RING + lane_id() / 16 * S::PLANE + (left + lane_id() % 16) * WORDS;
    // Its pair of the first pixel and plane of the next ring; column c is at c + 1.
    const int d_word = (CONV + 1) * S::RING + 2 * half * S::PLANE +
                       (left + 1 + lane_id() / 4) * WORDS + lane_id() % 4;
    const int bias_at = (CONV * 4 + half * 2) * 4 + lane_id() % 4;

    if constexpr (!IS_FIRST) {
#pragma unroll
        for (int slot = 0; slot < SLOTS; ++slot) {
            bar_arrive(empty(CONV, slot), 2 * S::CONV_THREADS);
        }
    }
    for (int item = blockIdx.x; item < work.items; item += gridDim.x) {
        const unsigned down = unsigned(item) / work.strips, n = down / work.segments;
        const int y0 = (down - n * work.segments) * work.segment;
        const int x0 = (item - down * work.strips) * S::USEFUL - (CONVS - 1);  // of column 0
        const int rows = min(work.segment, size.height - y0) + 2 * REACH;
        const int top = y0 - REACH;
        // Asked for anew: registers are short in the loop below, which needs it no more.
        const int g = lane_id() / 4, q = lane_id() % 4;
        // The columns that it may fill, and where in them this lane's first one lies.
        const int from = IS_LAST ? x0 + CONVS - 1 : 0;
        const unsigned extent = (IS_LAST ? min(from + S::USEFUL, size.width) : size.width) - from;
        const int at = x0 + left + g - from;

        // The lane's first pixel in the next row to load from x: picture column load_at. And in
        // the next row of out.
        constexpr int LOAD_STEP = 8 * S::CONV_WARPS;
        const int load_at = x0 - 1 + 8 * warp + g;
        const int64_t row = int64_t(size.width) * To::PIXEL;
        int64_t load_word = To::start(size, n, q) + top * row + int64_t(load_at) * To::PIXEL;
        int64_t out_word =
            To::start(size, n, 2 * half) + y0 * row + int64_t(from + at) * To::PIXEL + q;
        const auto load_row = [&](int i, int slot) {
            const bool has_row = unsigned(top + i) < unsigned(size.height);
#pragma unroll
            for (int j = 0; j < S::RING_COLUMNS; j += LOAD_STEP) {
                const int c = 8 * warp + g + j;
                if (j + LOAD_STEP > S::RING_COLUMNS && c >= S::RING_COLUMNS) break;
                const int word = slot * S::SLOT + q * S::PLANE + c * WORDS;
                const bool inside = has_row && unsigned(load_at + j) < unsigned(size.width);
                cp_async16(rings, word, work.x, load_word + j * To::PIXEL, inside);
            }
            load_word += row;
        };
        if constexpr (IS_FIRST) {
            // The last rows of the item before have been read by all.
            bar_sync(LOADED, S::CONV_THREADS);
            load_row(0, 0);
            cp_async_commit();
            load_row(1, 1);
            cp_async_commit();
        }
        float acc[SLOTS][TILES][2][4] = {};  // [open row][16 pixels][8 channels]
        for (int start = 0; start < rows; start += SLOTS) {
#pragma unroll
            for (int u = 0; u < SLOTS; ++u) {
                // Row i of the input is in slot u. It opens row i + 1 of the output, in acc[u],
                // and finishes row i - 1, which was opened two steps ago.
                const int i = start + u;
                if (i >= rows) break;
                const int finished = (u + 1) % SLOTS, beside = (u + 2) % SLOTS;
                // acc[u] is free: what it opens with comes while the row does.
#pragma unroll
                for (int c = 0; c < 2; ++c) {
                    const float2 bias = biases.load(bias_at + 4 * c);
#pragma unroll
                    for (int j = 0; j < 4 * TILES; ++j) {
                        acc[u][j / 4][c][j % 4] = j % 2 ? bias.y : bias.x;
                    }
                }
                if constexpr (IS_FIRST) {
                    cp_async_wait<1>();
                    bar_sync(LOADED, S::CONV_THREADS);
                    if (i + 2 < rows) load_row(i + 2, beside);
                    cp_async_commit();
                } else {
                    bar_sync(full(CONV, u), 2 * S::CONV_THREADS);
                }
#pragma unroll
                for (int t = 0; t < TILES; ++t) {
#pragma unroll
                    for (int step = 0; step < 6; ++step) {
                        const int kx = step / 2, k = step % 2;
                        uint32_t a[4];
                        ldmatrix_x4(
                            a, rings,
                            a_word + u * S::SLOT + 2 * k * S::PLANE + (16 * t + kx) * WORDS);
#pragma unroll
                        for (int c = 0; c < 2; ++c) {
                            const auto tap = [&](int ky, float(&sum)[4]) {
                                const uint4& b = w[3 * ky + kx][c];
                                mma_m16n8k16(sum, a, k ? b.z : b.x, k ? b.w : b.y);
                            };
                            tap(0, acc[u][t][c]);
                            tap(1, acc[beside][t][c]);
                            tap(2, acc[finished][t][c]);
                        }
                    }
                }
                if constexpr (!IS_FIRST) bar_arrive(empty(CONV, u), 2 * S::CONV_THREADS);
                if (i < 2) continue;
                // Of 16 pixels a lane holds pairs: pixel g of 8, channels 2 q and 2 q + 1 of 8.
                const auto sums = [&](int j, int p) { return &acc[finished][j / 2][p][j % 2 * 2]; };
                if constexpr (IS_LAST) {
#pragma unroll
                    for (int t = 0; t < TILES; ++t) {
                        const auto word = [&](int k) {
                            return out_word + k % 2 * To::plane(size) +
                                   (16 * t + k / 2 * 8) * To::PIXEL;
                        };
                        const auto inside = [&](int k) {
                            return unsigned(at + 16 * t + k / 2 * 8) < extent;
                        };
                        uint32_t gate[4];
#pragma unroll
                        for (int k = 0; k < 4 && EPILOGUE == Epilogue::gate; ++k) {
                            if (inside(k)) gate[k] = work.gate.load(word(k));
                        }
#pragma unroll
                        for (int k = 0; k < 4; ++k) {
                            const float* sum = sums(2 * t + k / 2, k % 2);
                            const uint32_t pair = finish<EPILOGUE>(gate[k], sum);
                            if (inside(k)) work.out.store(word(k), pair);
                        }
                    }
                    out_word += row;
                } else {
                    // Computed before the slot is free, and anyhow: without a branch pairs overlap.
                    uint32_t pairs[2 * TILES][2];
                    const bool has_row = unsigned(top + i - 1) < unsigned(size.height);
#pragma unroll
                    for (int j = 0; j < 2 * TILES; ++j) {
                        const bool inside = has_row && unsigned(at + 8 * j) < extent;
                        const uint32_t low = pack_silu(sums(j, 0)), high = pack_silu(sums(j, 1));
                        pairs[j][0] = inside ? low : 0;
                        pairs[j][1] = inside ? high : 0;
                    }
                    bar_sync(empty(CONV + 1, finished), 2 * S::CONV_THREADS);
#pragma unroll
                    for (int j = 0; j < 2 * TILES; ++j) {
                        const int word = d_word + finished * S::SLOT + 8 * j * WORDS;
                        rings.store(word, pairs[j][0]);
                        rings.store(word + S::PLANE, pairs[j][1]);
                    }
                    bar_arrive(full(CONV + 1, finished), 2 * S::CONV_THREADS);
                }
            }
        }
    }
    if constexpr (!IS_LAST) {
        // Pairs with what the reader arrives at each slot with, its last time included.
#pragma unroll
        for (int slot = 0; slot < SLOTS; ++slot) {
            bar_sync(empty(CONV + 1, slot), 2 * S::CONV_THREADS);
        }
    }
}

template <int CONVS, Epilogue EPILOGUE, Layout LAYOUT>
__global__ void __launch_bounds__(Strip<CONVS>::THREADS, 1) rows_kernel(Work work) {
    using S = Strip<CONVS>;
    SHARED(uint32_t, rings, CONVS * S::RING);
    SHARED(float2, biases, CONVS * CHANNELS / 2);
    if (threadIdx.x < CONVS * CHANNELS / 2) {
        biases.store(threadIdx.x, work.biases.load(threadIdx.x));
    }
    bar_sync(ALL, S::THREADS);
    const int conv = warp_uniform(threadIdx.x / S::CONV_THREADS);
    if (conv == 0) {
        convolve<CONVS, 0, EPILOGUE, LAYOUT>(work, rings, biases);
    } else if constexpr (CONVS == 2) {
        convolve<CONVS, 1, EPILOGUE, LAYOUT>(work, rings, biases);
    } else if constexpr (CONVS == 3) {
        if (conv == 1) {
            convolve<CONVS, 1, EPILOGUE, LAYOUT>(work, rings, biases);
        } else {
            convolve<CONVS, 2, EPILOGUE, LAYOUT>(work, rings, biases);
        }
    }
}

// Into how many segments to cut the height: the fewest rows one after the other, those that
// segments compute twice counted in.
inline int64_t count_segments(int64_t strips, int64_t height, int convs, int64_t processors) {
    int64_t best = 1, least = INT64_MAX;
    for (int64_t count = 1; count <= height && (count - 1) * strips < 2 * processors; ++count) {
        const int64_t rows = ceil_div(height, count) + 2 * convs;
        const int64_t all = ceil_div(strips * count, processors) * rows;
        if (all < least) {
            least = all;
            best = count;
        }
    }
    return best;
}

template <int CONVS, Epilogue EPILOGUE, Layout LAYOUT>
cudaError_t launch_as(
    const void* x, const void* weights, const void* biases, const void* gate, void* out, int64_t n,
    int64_t h, int64_t w, cudaStream_t stream) {
    int device = 0, processors = 0;
    if (const auto error = cudaGetDevice(&device)) return error;
    if (const auto error =
            cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device)) {
        return error;
    }
    const int64_t strips = ceil_div(w, int64_t(Strip<CONVS>::USEFUL));
    const int64_t segment = ceil_div(h, count_segments(n * strips, h, CONVS, processors));
    const int64_t segments = ceil_div(h, segment);
    const int64_t items = n * strips * segments;
    // Columns and rows past the picture's last are numbered too.
    if (h > (1 << 30) || w > (1 << 30) || items > MAX_BLOCKS) return cudaErrorInvalidValue;
    const int64_t words = n * h * w * PLANES * WORDS;
    const Work work{
        {static_cast<const uint32_t*>(x), words},
        {static_cast<const uint4*>(weights), CONVS * 2 * 9 * 2 * 32},
        {static_cast<const float2*>(biases), CONVS * CHANNELS / 2},
        {static_cast<const uint32_t*>(gate), words},
        {static_cast<uint32_t*>(out), words},
        {int(h), int(w), h * w},
        int(segment),
        unsigned(strips),
        unsigned(segments),
        int(items)};
    return launch(
        rows_kernel<CONVS, EPILOGUE, LAYOUT>, std::min<int64_t>(items, processors),
        Strip<CONVS>::THREADS, stream, work);
}

}  // namespace espan::rows
