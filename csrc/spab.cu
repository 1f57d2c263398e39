// spab: a whole block, 2 or 3 convolutions of 32 channels with SiLU between and the gate at the
// end, in one kernel. Half precision, summed in float; nothing but x and out touches memory.
//
// A block of threads walks down a strip of the picture, a row a step. Its 12 warps are shared out
// among the convolutions; each holds the weights of 16 output channels in registers and takes 32
// columns of every row. A row of input goes into the three rows of output it reaches, whose sums
// are open in registers at the same time, so it is read from shared memory once per column of the
// kernel, not per tap. Rows pass from one convolution to the next through rings of 3 rows, in
// planes: shared memory [slot][plane][column][8 channels], a pixel's 16 bytes the row of an
// ldmatrix, so that any shift is aligned and free of bank conflicts.
//
// All rows of a strip are numbered in the columns of the picture part that every convolution
// computes. Its neighbours left and right are not there: each convolution after the first gets
// one more column wrong at both sides, which is not stored. Pixels outside of the picture are 0
// in every ring, as each convolution pads its own input.
#include <algorithm>

#include "ptx.cuh"

namespace espan {
namespace {

constexpr int CHANNELS = 32;
constexpr int PLANES = CHANNELS / 8;
constexpr int WARPS = 12;
constexpr int THREADS = 32 * WARPS;
constexpr int SLOTS = 3;        // rows of a ring, and open rows of output
constexpr int WARP_COLUMNS = 32;
constexpr int TILES = WARP_COLUMNS / 16;
constexpr int WORDS = 4;        // of 2 channels, in a pixel of a plane

template <int CONVS>
struct Strip {
    static constexpr int CONV_WARPS = WARPS / CONVS;
    static constexpr int CONV_THREADS = 32 * CONV_WARPS;
    static constexpr int COLUMNS = WARP_COLUMNS * CONV_WARPS / 2;  // computed
    static constexpr int USEFUL = COLUMNS - 2 * (CONVS - 1);       // stored
    static constexpr int RING_COLUMNS = COLUMNS + 2;
    static constexpr int PLANE = RING_COLUMNS * WORDS;
    static constexpr int SLOT = PLANES * PLANE;
    static constexpr int RING = SLOTS * SLOT;
};

// Named barriers. Ring r is read by convolution r, and written by the one before it.
constexpr int LOADED = 1;
__device__ constexpr int full(int ring, int slot) { return 2 + 2 * SLOTS * (ring - 1) + slot; }
__device__ constexpr int empty(int ring, int slot) { return full(ring, slot) + SLOTS; }

// A batch of pictures, its steps in words.
struct Pictures {
    int height, width;
    int64_t picture, plane, row;
};

__device__ inline float silu(float z) {
    constexpr float LOG2_E = 1.4426950408889634f;
    return z * rcp_approx(1 + ex2_approx(-LOG2_E * z));
}

__device__ inline uint32_t silu(const float* pair) { return pack_half2(silu(pair[0]), silu(pair[1])); }

// (z + x) * (sigmoid(z) - 1/2) for h = z / 2, which is what halved weights give.
__device__ inline uint32_t gate_of_half(uint32_t x, const float* h) {
    const float2 before = unpack_half2(x);
    return pack_half2(
        (h[0] + 0.5f * before.x) * tanh_approx(h[0]), (h[1] + 0.5f * before.y) * tanh_approx(h[1]));
}

struct Work {
    Global<const uint32_t> x;     // (N, 4, H, W, 8) or (N, H, W, 4, 8) halves
    Global<const uint4> weights;  // (convolutions, 2, 9, 2, 32 lanes, 8): layout.fragments
    Global<const float> biases;   // (convolutions, 32)
    Global<uint32_t> out;         // as x
    Pictures size;
    int segment, strips, segments, items;  // rows of an item, items across, down, in all
};

// What the warps of convolution CONV do. PIXEL: words from one pixel of x and out to the next.
template <int CONVS, int CONV, int PIXEL>
__device__ inline void convolve(const Work& work, Shared<uint32_t> rings) {
    using S = Strip<CONVS>;
    constexpr bool IS_FIRST = CONV == 0, IS_LAST = CONV == CONVS - 1;
    constexpr int REACH = CONVS - CONV;  // rows beyond an item's that it reads
    const Pictures& size = work.size;
    const int lane = threadIdx.x % 32;
    const int warp = warp_uniform(threadIdx.x / 32 % S::CONV_WARPS);
    const int half = warp % 2;                      // output channels from 16 * half on
    const int left = warp / 2 * WARP_COLUMNS;       // columns from left on
    const int g = lane / 4, q = lane % 4;

    uint4 w[9][2];  // [tap][8 channels out]: b0, b1 of input channels 0..15, then of 16..31
#pragma unroll
    for (int i = 0; i < 18; ++i) {
        w[i / 2][i % 2] = work.weights.load(((CONV * 2 + half) * 18 + i) * 32 + lane);
    }
    float bias[2][2];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        bias[i / 2][i % 2] = work.biases.load(CONV * CHANNELS + half * 16 + i / 2 * 8 + 2 * q + i % 2);
    }

    // This lane's row of an ldmatrix: pixel lane % 16, plane lane / 16 of the two of 16 channels.
    const int a_word = CONV * S::RING + lane / 16 * S::PLANE + (left + lane % 16) * WORDS;
    // Its pair of the first pixel and plane of the next ring; column c is at c + 1.
    const int d_word =
        (CONV + 1) * S::RING + 2 * half * S::PLANE + (left + 1 + g) * WORDS + q;

    float acc[SLOTS][TILES][2][4] = {};  // [open row][16 pixels][8 channels]

    if constexpr (!IS_FIRST) {
#pragma unroll
        for (int slot = 0; slot < SLOTS; ++slot) {
            bar_arrive(empty(CONV, slot), 2 * S::CONV_THREADS);
        }
    }
    for (int item = blockIdx.x; item < work.items; item += gridDim.x) {
        const int y0 = item / work.strips % work.segments * work.segment;
        const int x0 = item % work.strips * S::USEFUL - (CONVS - 1);  // of column 0
        const int rows = min(work.segment, size.height - y0) + 2 * REACH;
        const int top = y0 - REACH;
        // The columns that it may fill, and where in them this lane's first one lies.
        const int from = IS_LAST ? x0 + CONVS - 1 : 0;
        const unsigned extent = (IS_LAST ? min(from + S::USEFUL, size.width) : size.width) - from;
        const int at = x0 + left + g - from;

        // The word of the lane's first pixel in the next row to load from x or to store to out.
        constexpr int LOAD_STEP = 8 * S::CONV_WARPS;
        const int load_c = 8 * warp + g;  // in the ring, where column c is at c + 1
        const int load_at = x0 - 1 + load_c;
        int64_t next = item / (work.strips * work.segments) * size.picture;
        if constexpr (IS_FIRST) next += top * size.row + q * size.plane + int64_t(load_at) * PIXEL;
        if constexpr (IS_LAST) {
            next += y0 * size.row + 2 * half * size.plane + int64_t(from + at) * PIXEL + q;
        }
        const auto load_row = [&](int i, int slot) {
            const bool has_row = unsigned(top + i) < unsigned(size.height);
#pragma unroll
            for (int j = 0; j < S::RING_COLUMNS; j += LOAD_STEP) {
                if (j + LOAD_STEP > S::RING_COLUMNS && load_c + j >= S::RING_COLUMNS) break;
                const int word = slot * S::SLOT + q * S::PLANE + (load_c + j) * WORDS;
                const bool inside = has_row && unsigned(load_at + j) < extent;
                cp_async16(rings, word, work.x, next + j * PIXEL, inside);
            }
            next += size.row;
        };
        if constexpr (IS_FIRST) {
            // The last rows of the item before have been read by all.
            bar_sync(LOADED, S::CONV_THREADS);
            load_row(0, 0);
            cp_async_commit();
            load_row(1, 1);
            cp_async_commit();
        }
        for (int start = 0; start < rows; start += SLOTS) {
#pragma unroll
            for (int u = 0; u < SLOTS; ++u) {
                // Row i of the input is in slot u. It opens row i + 1 of the output, in acc[u],
                // and finishes row i - 1, which was opened two steps ago.
                const int i = start + u;
                if (i >= rows) break;
                const int finished = (u + 1) % SLOTS, beside = (u + 2) % SLOTS;
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
                    for (int j = 0; j < 8; ++j) acc[u][t][j / 4][j % 4] = bias[j / 4][j % 2];
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
                        uint32_t before[2][2];
#pragma unroll
                        for (int k = 0; k < 4; ++k) {
                            const int j = 2 * t + k / 2;
                            const int64_t word = next + 8 * j * PIXEL + k % 2 * size.plane;
                            if (unsigned(at + 8 * j) < extent) {
                                before[k / 2][k % 2] = work.x.load(word);
                            }
                        }
#pragma unroll
                        for (int k = 0; k < 4; ++k) {
                            const int j = 2 * t + k / 2;
                            const int64_t word = next + 8 * j * PIXEL + k % 2 * size.plane;
                            if (unsigned(at + 8 * j) < extent) {
                                work.out.store(
                                    word, gate_of_half(before[k / 2][k % 2], sums(j, k % 2)));
                            }
                        }
                    }
                    next += size.row;
                } else {
                    const bool has_row = unsigned(top + i - 1) < unsigned(size.height);
                    bar_sync(empty(CONV + 1, finished), 2 * S::CONV_THREADS);
#pragma unroll
                    for (int j = 0; j < 2 * TILES; ++j) {
                        const bool inside = has_row && unsigned(at + 8 * j) < extent;
                        const int word = d_word + finished * S::SLOT + 8 * j * WORDS;
                        rings.store(word, inside ? silu(sums(j, 0)) : 0);
                        rings.store(word + S::PLANE, inside ? silu(sums(j, 1)) : 0);
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

template <int CONVS, int PIXEL>
__global__ void __launch_bounds__(THREADS, 1) spab_kernel(Work work) {
    using S = Strip<CONVS>;
    SHARED(uint32_t, rings, CONVS * S::RING);
    const int conv = warp_uniform(threadIdx.x / S::CONV_THREADS);
    if (conv == 0) convolve<CONVS, 0, PIXEL>(work, rings);
    if (conv == 1) convolve<CONVS, 1, PIXEL>(work, rings);
    if constexpr (CONVS == 3) {
        if (conv == 2) convolve<CONVS, 2, PIXEL>(work, rings);
    }
}

// Into how many segments to cut the height: the fewest rows one after the other, those that
// segments compute twice counted in.
int64_t count_segments(int64_t strips, int64_t height, int convs, int64_t processors) {
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

template <int CONVS, Layout LAYOUT>
cudaError_t launch_spab(
    const void* x, const void* weights, const void* biases, void* out, int64_t n, int64_t h,
    int64_t w, cudaStream_t stream) {
    constexpr int PIXEL = LAYOUT == Layout::planes ? WORDS : PLANES * WORDS;
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
    if (items > MAX_BLOCKS) return cudaErrorInvalidValue;
    const int64_t plane = LAYOUT == Layout::planes ? WORDS * h * w : WORDS;
    const Pictures size{int(h), int(w), PLANES * WORDS * h * w, plane, PIXEL * w};
    const int64_t words = n * size.picture;
    const Work work{
        {static_cast<const uint32_t*>(x), words},
        {static_cast<const uint4*>(weights), CONVS * 2 * 9 * 2 * 32},
        {static_cast<const float*>(biases), CONVS * CHANNELS},
        {static_cast<uint32_t*>(out), words},
        size,
        int(segment),
        int(strips),
        int(segments),
        int(items)};
    return launch(
        spab_kernel<CONVS, PIXEL>, std::min<int64_t>(items, processors), THREADS, stream, work);
}

}  // namespace

cudaError_t spab(
    const void* x, const void* weights, const void* biases, void* out, int convs, int64_t n,
    int64_t h, int64_t w, Layout layout, cudaStream_t stream) {
    // Columns of a strip past the picture's last are numbered too.
    if (h > (1 << 30) || w > (1 << 30)) return cudaErrorInvalidValue;
    if (convs != 2 && convs != 3) return cudaErrorInvalidValue;
    const bool planes = layout == Layout::planes;
    const auto launch_it =
        convs == 2 ? (planes ? launch_spab<2, Layout::planes> : launch_spab<2, Layout::channels_last>)
                   : (planes ? launch_spab<3, Layout::planes> : launch_spab<3, Layout::channels_last>);
    return launch_it(x, weights, biases, out, n, h, w, stream);
}

}  // namespace espan
