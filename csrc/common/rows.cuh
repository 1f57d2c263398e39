// Convolutions of few channels, 3x3, that stream rows: one to three of them in one kernel.
//
// A block of threads walks down a strip of the picture, a row a step. Its warps are shared out
// among the convolutions; each holds the weights of 8 to 24 output channels in registers and takes
// 16 to 64 columns of every row. A row of input goes into the three rows of output it reaches,
// whose sums are open in registers at the same time, so it is read from shared memory once per
// column of the kernel, not per tap. Rows pass from one convolution to the next through rings of 3
// rows: shared memory [slot][plane][column][8 channels], a pixel's 16 bytes the row of an ldmatrix,
// so that any shift is aligned and free of bank conflicts. Only the first input and the last
// output, and what gates it, touch memory.
//
// Every convolution computes the same columns, numbered from the strip's left. What lies beside
// them is there for the first one alone: each that follows gets one more column wrong at both
// sides, and these are not stored. Pixels outside of the picture are 0 in every ring, as each
// convolution pads its own input.
#pragma once

#include "common/strip.cuh"

namespace espan::rows {

// What the warps of convolution CONV do.
template <int CHANNELS, int CONVS, int CONV, Layout LAYOUT, bool HALF_SUMS>
__device__ inline void convolve(
    const Work& work, Shared<uint32_t> rings, Shared<float2> biases) {
    using S = Strip<CHANNELS, CONVS, HALF_SUMS>;
    using To = Steps<S::PLANES, LAYOUT>;
    constexpr int PLANES = S::PLANES, OUT_PLANES = S::OUT_PLANES, TILES = S::TILES;
    constexpr int STEPS = (PLANES + 1) / 2;       // of 16 input channels
    constexpr int CHAIN = HALF_SUMS ? 2 : STEPS;  // of them, at 3 columns each, summed in one go
    constexpr bool IS_FIRST = CONV == 0, IS_LAST = CONV == CONVS - 1;
    constexpr int REACH = CONVS - CONV;  // rows beyond an item's that it reads
    const Pictures& size = work.size;
    const int warp = warp_uniform(threadIdx.x / 32 % S::CONV_WARPS);
    const int first_out = warp % S::SHARES * OUT_PLANES;  // its planes of output: from there on
    const int left = warp / S::SHARES * S::WARP_COLUMNS;  // its columns: from there on

    uint32_t w[OUT_PLANES][9][PLANES];  // [plane out][tap][plane in]
#pragma unroll
    for (int i = 0; i < OUT_PLANES * 9 * PLANES; ++i) {
        const int row = (CONV * PLANES + first_out) * 9 * PLANES + i;
        w[i / PLANES / 9][i / PLANES % 9][i % PLANES] = work.weights.load(row * 32 + lane_id());
    }
    // This lane's row of an ldmatrix: pixel lane % 16, plane lane / 16 of the two of 16 channels.
    const int a_word =
        CONV * S::RING + lane_id() / 16 * S::PLANE + (left + lane_id() % 16) * WORDS;
    // Its pair of the first pixel and plane of the next ring; column c is at c + 1.
    const int d_word = (CONV + 1) * S::RING + first_out * S::PLANE +
                       (left + 1 + lane_id() / 4) * WORDS + lane_id() % 4;
    const int bias_at = (CONV * PLANES + first_out) * 4 + lane_id() % 4;

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
            To::start(size, n, first_out) + y0 * row + int64_t(from + at) * To::PIXEL + q;
        const auto load_row = [&](int i, int slot) {
            const bool has_row = unsigned(top + i) < unsigned(size.height);
#pragma unroll
            for (int j = 0; j < S::RING_COLUMNS; j += LOAD_STEP) {
                const int c = 8 * warp + g + j;
                if (j + LOAD_STEP > S::RING_COLUMNS && c >= S::RING_COLUMNS) break;
                const int word = slot * S::SLOT + q * S::PLANE + c * WORDS;
                const bool inside = has_row && unsigned(load_at + j) < unsigned(size.width);
#pragma unroll
                for (int p = 0; p < PLANES; p += 4) {
                    if (p + 4 > PLANES && q + p >= PLANES) break;
                    const int64_t from = load_word + j * To::PIXEL + p * To::plane(size);
                    cp_async16(rings, word + p * S::PLANE, work.x, from, inside);
                }
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
        float acc[SLOTS][TILES][OUT_PLANES][4] = {};  // [open row][16 pixels][plane out]
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
                for (int c = 0; c < OUT_PLANES; ++c) {
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
                    for (int first = 0; first < STEPS; first += CHAIN) {
                        const int steps = min(CHAIN, STEPS - first);
                        uint32_t halves[3][OUT_PLANES][2] = {};  // [tap's row][plane out]
#pragma unroll
                        for (int step = 0; step < 3 * steps; ++step) {
                            const int kx = step / steps, k = 2 * (first + step % steps);
                            const bool pair = k + 1 < PLANES;  // planes k and k + 1, or k alone
                            const int word =
                                a_word + u * S::SLOT + k * S::PLANE + (16 * t + kx) * WORDS;
                            uint32_t a[4];
                            pair ? ldmatrix_x4(a, rings, word) : ldmatrix_x2(a, rings, word);
#pragma unroll
                            for (int c = 0; c < OUT_PLANES; ++c) {
                                const auto tap = [&](int ky, auto& sum) {
                                    const uint32_t* b = &w[c][3 * ky + kx][k];
                                    pair ? mma_m16n8k16(sum, a, b[0], b[1])
                                         : mma_m16n8k8(sum, a, b[0]);
                                };
                                if constexpr (HALF_SUMS) {
                                    for (int ky = 0; ky < 3; ++ky) tap(ky, halves[ky][c]);
                                } else {
                                    tap(0, acc[u][t][c]);
                                    tap(1, acc[beside][t][c]);
                                    tap(2, acc[finished][t][c]);
                                }
                            }
                        }
#pragma unroll
                        for (int c = 0; HALF_SUMS && c < OUT_PLANES; ++c) {
                            add(acc[u][t][c], halves[0][c]);
                            add(acc[beside][t][c], halves[1][c]);
                            add(acc[finished][t][c], halves[2][c]);
                        }
                    }
                }
                if constexpr (!IS_FIRST) bar_arrive(empty(CONV, u), 2 * S::CONV_THREADS);
                if (i < 2) continue;
                // Of 16 pixels a lane holds pairs: pixel g of 8, channels 2 q and 2 q + 1 of 8.
                const auto sums = [&](int j, int p) { return &acc[finished][j / 2][p][j % 2 * 2]; };
                // Stores them, the epilogue a type as what follows it differs.
                const auto finish_row = [&](auto epilogue) {
                    constexpr Epilogue EPILOGUE = epilogue.value;
#pragma unroll
                    for (int t = 0; t < TILES; ++t) {
                        const auto word = [&](int k) {
                            return out_word + k % OUT_PLANES * To::plane(size) +
                                   (16 * t + k / OUT_PLANES * 8) * To::PIXEL;
                        };
                        const auto inside = [&](int k) {
                            return unsigned(at + 16 * t + k / OUT_PLANES * 8) < extent;
                        };
                        uint32_t gate[2 * OUT_PLANES];
#pragma unroll
                        for (int k = 0; k < 2 * OUT_PLANES && EPILOGUE == Epilogue::gate; ++k) {
                            if (inside(k)) gate[k] = work.gate.load(word(k));
                        }
#pragma unroll
                        for (int k = 0; k < 2 * OUT_PLANES; ++k) {
                            const float* sum = sums(2 * t + k / OUT_PLANES, k % OUT_PLANES);
                            const uint32_t pair = finish<EPILOGUE>(gate[k], sum);
                            if (inside(k)) work.out.store(word(k), pair);
                        }
                    }
                };
                if constexpr (IS_LAST) {
                    if (CONVS > 1 || work.epilogue == Epilogue::gate) {
                        finish_row(Finish<Epilogue::gate>());
                    } else if (work.epilogue == Epilogue::silu) {
                        finish_row(Finish<Epilogue::silu>());
                    } else {
                        finish_row(Finish<Epilogue::none>());
                    }
                    out_word += row;
                } else {
                    // Computed before the slot is free, and anyhow: without a branch pairs overlap.
                    uint32_t pairs[2 * TILES][OUT_PLANES];
                    const bool has_row = unsigned(top + i - 1) < unsigned(size.height);
#pragma unroll
                    for (int j = 0; j < 2 * TILES * OUT_PLANES; ++j) {
                        const int eight = j / OUT_PLANES, p = j % OUT_PLANES;
                        const bool inside = has_row && unsigned(at + 8 * eight) < extent;
                        const uint32_t pair = pack_silu(sums(eight, p));
                        pairs[eight][p] = inside ? pair : 0;
                    }
                    bar_sync(empty(CONV + 1, finished), 2 * S::CONV_THREADS);
#pragma unroll
                    for (int j = 0; j < 2 * TILES * OUT_PLANES; ++j) {
                        const int eight = j / OUT_PLANES, p = j % OUT_PLANES;
                        const int word = d_word + finished * S::SLOT + 8 * eight * WORDS;
                        rings.store(word + p * S::PLANE, pairs[eight][p]);
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

template <int CHANNELS, int CONVS, Layout LAYOUT, bool HALF_SUMS>
__global__ void __launch_bounds__(Strip<CHANNELS, CONVS, HALF_SUMS>::THREADS, 1)
rows_kernel(Work work) {
    using S = Strip<CHANNELS, CONVS, HALF_SUMS>;
    SHARED(uint32_t, rings, CONVS * S::RING);
    SHARED(float2, biases, CONVS * CHANNELS / 2);
    if (threadIdx.x < CONVS * CHANNELS / 2) {
        biases.store(threadIdx.x, work.biases.load(threadIdx.x));
    }
    bar_sync(ALL, S::THREADS);
    const int conv = warp_uniform(threadIdx.x / S::CONV_THREADS);
    if (conv == 0) {
        convolve<CHANNELS, CONVS, 0, LAYOUT, HALF_SUMS>(work, rings, biases);
    } else if constexpr (CONVS == 2) {
        convolve<CHANNELS, CONVS, 1, LAYOUT, HALF_SUMS>(work, rings, biases);
    } else if constexpr (CONVS == 3) {
        if (conv == 1) {
            convolve<CHANNELS, CONVS, 1, LAYOUT, HALF_SUMS>(work, rings, biases);
        } else {
            convolve<CHANNELS, CONVS, 2, LAYOUT, HALF_SUMS>(work, rings, biases);
        }
    }
}

template <int CHANNELS, int CONVS, Layout LAYOUT, bool HALF_SUMS>
cudaError_t launch_as(
    const void* x, const void* weights, const void* biases, const void* gate, void* out,
    Epilogue epilogue, int64_t n, int64_t h, int64_t w, cudaStream_t stream) {
    int device = 0, processors = 0;
    if (const auto error = cudaGetDevice(&device)) return error;
    if (const auto error =
            cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device)) {
        return error;
    }
    using S = Strip<CHANNELS, CONVS, HALF_SUMS>;
    const int64_t strips = ceil_div(w, int64_t(S::USEFUL));
    const int64_t segment = ceil_div(h, count_segments(n * strips, h, CONVS, processors));
    const int64_t segments = ceil_div(h, segment);
    const int64_t items = n * strips * segments;
    // Columns and rows past the picture's last are numbered too.
    if (h > (1 << 30) || w > (1 << 30) || items > MAX_BLOCKS) return cudaErrorInvalidValue;
    const int64_t words = n * h * w * S::PLANES * WORDS;
    const Work work{
        {static_cast<const uint32_t*>(x), words},
        {static_cast<const uint32_t*>(weights), CONVS * S::PLANES * 9 * S::PLANES * 32},
        {static_cast<const float2*>(biases), CONVS * CHANNELS / 2},
        {static_cast<const uint32_t*>(gate), words},
        {static_cast<uint32_t*>(out), words},
        {int(h), int(w), h * w},
        int(segment),
        unsigned(strips),
        unsigned(segments),
        int(items),
        epilogue};
    return launch(
        rows_kernel<CHANNELS, CONVS, LAYOUT, HALF_SUMS>, std::min<int64_t>(items, processors),
        S::THREADS, stream, work);
}

}  // namespace espan::rows
