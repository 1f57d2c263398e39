// tail: from the last feature maps to the upscaled image, in one kernel.
//
// h = conv3x3(x) + 1x1 convolutions of two or three other inputs + bias: 32 channels, kept only in
// shared memory. Then a 3x3 convolution of h whose output channels are pixels of the image. A block
// streams a strip of 64 columns one row at a time, as in rows.cuh: each row is accumulated into the
// three output rows that it contributes to, whose sums are in registers. Four warps compute h and
// pass it through a ring buffer of 3 rows to the four warps that compute pixels. A warp processes
// 32 columns and holds the weights of 16 channels of h, or of half of the image's channels.
//
// The input of a 1x1 convolution needs no shift, and its channel order is free if the weights match
// it. So a lane reads 8 channels of a pixel, 16 bytes, directly into its part of A.
#include "tail_pixels.cuh"

namespace espan {
namespace {

using namespace ends;

constexpr int ROLE_WARPS = 4, ROLE_THREADS = 32 * ROLE_WARPS;
constexpr int MAX_SINGLES = 3;

// Named barriers.
constexpr int ALL = 0, LOADED = 1, STAGED = 2;
__device__ constexpr int full(int slot) { return 3 + slot; }
__device__ constexpr int empty(int slot) { return full(SLOTS) + slot; }

struct Work {
    Global<const uint32_t> x;                     // (n, 32, h, w) halves, strides in `from`
    Global<const uint32_t> singles[MAX_SINGLES];  // the same
    Global<const uint4> weights;         // (2, 9, 2, 32 lanes, 8 halves)
    Global<const uint4> single_weights;  // (singles, 2, 2, 32, 8)
    Global<const uint4> up_weights;      // (2, 9, OUT_PLANES, 32, 8)
    Global<const float2> biases;         // (32), then (2, OUT_PLANES, 8)
    FeatureSteps from;
    OutputImage to;  // (n, 3, SCALE h, SCALE w)
    Cut cut;
};

// Computes h: copies x to ring 0 and stores h in ring 1.
template <int SINGLES>
__device__ inline void sum_up(const Work& work, Shared<uint32_t> rings, Shared<float2> biases) {
    const int warp = warp_uniform(threadIdx.x / 32 % ROLE_WARPS);
    const int half = warp % 2;                 // output channels 16 * half to 16 * half + 15
    const int left = warp / 2 * WARP_COLUMNS;  // the first column
    uint4 w[9][2];
#pragma unroll
    for (int i = 0; i < 18; ++i) {
        w[i / 2][i % 2] = work.weights.load((half * 18 + i) * 32 + lane_id());
    }
    uint4 single_w[SINGLES][2];
#pragma unroll
    for (int i = 0; i < 2 * SINGLES; ++i) {
        single_w[i / 2][i % 2] =
            work.single_weights.load(((i / 2 * 2 + half) * 2 + i % 2) * 32 + lane_id());
    }
    const int a_word = pixel_word(left);
    // The lane's pair of the first pixel and plane of h; column c is stored at c + 1.
    const int h_word = RING + 2 * half * PLANE + (left + 1 + lane_id() / 4) * WORDS + lane_id() % 4;

    for (int64_t k = blockIdx.x; k < work.cut.items; k += gridDim.x) {
        const Item it = item(work.cut, k);
        const int height = work.cut.height, width = work.cut.width;
        const int x0 = int(it.strip) * USEFUL - EDGE;  // of column 0
        const int top = it.top - 2, rows = it.rows + 4;
        const int g = lane_id() / 4, q = lane_id() % 4;
        const int64_t start_word = it.n * work.from.image + q * work.from.plane;
        const int load_at = x0 - 1 + 8 * warp + g;
        int64_t load_word =
            start_word + top * work.from.row + int64_t(load_at) * work.from.pixel;
        const auto load_row = [&](int i, int slot) {
            constexpr int STEP = 8 * ROLE_WARPS;
            const bool has_row = unsigned(top + i) < unsigned(height);
#pragma unroll
            for (int j = 0; j < RING_COLUMNS; j += STEP) {
                const int c = 8 * warp + g + j;
                if (j + STEP > RING_COLUMNS && c >= RING_COLUMNS) break;
                const bool inside = has_row && unsigned(load_at + j) < unsigned(width);
                cp_async16(
                    rings, slot * SLOT + q * PLANE + c * WORDS, work.x,
                    load_word + j * work.from.pixel, inside);
            }
            load_word += work.from.row;
        };
        // A pixel of the other inputs, clamped to the image; outside it h is 0 anyway.
        const auto single_word = [&](int i, int column) {
            const int y = min(max(top + i, 0), height - 1);
            const int x = min(max(x0 + left + g + column, 0), width - 1);
            return start_word + y * work.from.row + int64_t(x) * work.from.pixel;
        };
        uint4 singles[SINGLES][2];  // 16 pixels, two per lane
        const auto load_singles = [&](int i, int t) {
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                const int64_t word = single_word(i, 16 * t + 8 * j);
#pragma unroll
                for (int s = 0; s < SINGLES; ++s) singles[s][j] = work.singles[s].load16(word);
            }
        };
        // Loading into registers alone cannot hide memory latency. Each half prefetches 16 pixels.
        const auto prefetch_singles = [&](int i) {
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                const int64_t word = single_word(i, 16 * half + 8 * j);
#pragma unroll
                for (int s = 0; s < SINGLES; ++s) prefetch_l2(work.singles[s], word);
            }
        };
        const auto add_singles = [&](float(&sums)[2][4]) {
#pragma unroll
            for (int s = 0; s < SINGLES; ++s) {
                const uint4 &upper = singles[s][0], &lower = singles[s][1];
                const uint32_t a0[4] = {upper.x, lower.x, upper.y, lower.y};
                const uint32_t a1[4] = {upper.z, lower.z, upper.w, lower.w};
#pragma unroll
                for (int c = 0; c < 2; ++c) {
                    mma_m16n8k16(sums[c], a0, single_w[s][c].x, single_w[s][c].y);
                    mma_m16n8k16(sums[c], a1, single_w[s][c].z, single_w[s][c].w);
                }
            }
        };
        // All warps have read the last rows of the previous item.
        bar_sync(LOADED, ROLE_THREADS);
        load_row(0, 0);
        cp_async_commit();
        load_row(1, 1);
        cp_async_commit();
        load_singles(0, 0);
        prefetch_singles(1);
        float acc[SLOTS][TILES][2][4] = {};  // [row in progress][16 pixels][8 channels]
        for (int start = 0; start < rows; start += SLOTS) {
#pragma unroll
            for (int u = 0; u < SLOTS; ++u) {
                // Row i of x is in slot u. It starts row i + 1 of h, in acc[u], and finishes row
                // i - 1. Row i of the other inputs contributes to row i.
                const int i = start + u;
                if (i >= rows) break;
                const int finished = (u + 1) % SLOTS, middle = (u + 2) % SLOTS;
                open(biases, half * 8 + lane_id() % 4, acc[u]);
                const auto multiply_tile = [&](int t) {
                    const int word = a_word + u * SLOT + 16 * t * WORDS;
                    multiply(rings, word, w, acc[u][t], acc[middle][t], acc[finished][t]);
                };
                // Loads half a row of the other inputs while multiplying 16 pixels of x.
                add_singles(acc[middle][0]);
                load_singles(i, 1);
                cp_async_wait<1>();
                bar_sync(LOADED, ROLE_THREADS);
                if (i + 2 < rows) load_row(i + 2, middle);
                cp_async_commit();
                prefetch_singles(i + 2);
                multiply_tile(0);
                add_singles(acc[middle][1]);
                load_singles(i + 1, 0);
                multiply_tile(1);
                if (i < 2) continue;
                // A lane holds pairs: channels 2 q and 2 q + 1 of pixel g, for each 8 pixels.
                const bool has_row = unsigned(top + i - 1) < unsigned(height);
                uint32_t pairs[2 * TILES][2];
#pragma unroll
                for (int j = 0; j < 2 * TILES; ++j) {
                    const int column = x0 + left + g + 8 * j;
                    const bool inside = has_row && unsigned(column) < unsigned(width);
#pragma unroll
                    for (int c = 0; c < 2; ++c) {
                        const float* sum = &acc[finished][j / 2][c][j % 2 * 2];
                        pairs[j][c] = inside ? pack_half2(sum[0], sum[1]) : 0;
                    }
                }
                bar_sync(empty(finished), 2 * ROLE_THREADS);
#pragma unroll
                for (int j = 0; j < 2 * TILES; ++j) {
                    const int word = h_word + finished * SLOT + 8 * j * WORDS;
                    rings.store(word, pairs[j][0]);
                    rings.store(word + PLANE, pairs[j][1]);
                }
                bar_arrive(full(finished), 2 * ROLE_THREADS);
            }
        }
    }
    // Waits for the reader to free each slot for the last time.
#pragma unroll
    for (int slot = 0; slot < SLOTS; ++slot) bar_sync(empty(slot), 2 * ROLE_THREADS);
}

// Computes pixels from ring 1, stages rows of them in shared memory and writes them to memory.
template <int SCALE>
__device__ inline void upscale(
    const Work& work, Shared<uint32_t> rings, Shared<float2> biases, Shared<uint4> memory) {
    constexpr int OUT_PLANES = out_planes(SCALE);
    const int warp = warp_uniform(threadIdx.x / 32 % ROLE_WARPS);
    const int half = warp % 2;                 // output channels start at 8 * OUT_PLANES * half
    const int left = warp / 2 * WARP_COLUMNS;  // the first column
    uint4 w[9][OUT_PLANES];
#pragma unroll
    for (int i = 0; i < 9 * OUT_PLANES; ++i) {
        w[i / OUT_PLANES][i % OUT_PLANES] =
            work.up_weights.load((half * 9 * OUT_PLANES + i) * 32 + lane_id());
    }
    const int a_word = RING + pixel_word(left);
    const int bias_at = 16 + half * OUT_PLANES * 4 + lane_id() % 4;
    Stage<SCALE, OUT_PLANES, TILES> stage(work.to, memory, half, left);

#pragma unroll
    for (int slot = 0; slot < SLOTS; ++slot) bar_arrive(empty(slot), 2 * ROLE_THREADS);
    for (int64_t k = blockIdx.x; k < work.cut.items; k += gridDim.x) {
        const Item it = item(work.cut, k);
        stage.begin(it, work.cut.width);
        float acc[SLOTS][TILES][OUT_PLANES][4] = {};
        for (int start = 0; start < it.rows + 2; start += SLOTS) {
#pragma unroll
            for (int u = 0; u < SLOTS; ++u) {
                const int i = start + u;
                if (i >= it.rows + 2) break;
                const int finished = (u + 1) % SLOTS, middle = (u + 2) % SLOTS;
                open(biases, bias_at, acc[u]);
                bar_sync(full(u), 2 * ROLE_THREADS);
#pragma unroll
                for (int t = 0; t < TILES; ++t) {
                    const int word = a_word + u * SLOT + 16 * t * WORDS;
                    multiply(rings, word, w, acc[u][t], acc[middle][t], acc[finished][t]);
                }
                bar_arrive(empty(u), 2 * ROLE_THREADS);
                if (i < 2) continue;
                stage.put(half, acc[finished]);
                bar_sync(STAGED, ROLE_THREADS);
                stage.write(warp);
            }
        }
    }
}

template <int SCALE, int SINGLES>
__global__ void __launch_bounds__(2 * ROLE_THREADS, 1) tail_kernel(Work work) {
    constexpr int BIASES = 16 + 8 * out_planes(SCALE);
    SHARED(uint32_t, rings, 2 * RING);
    SHARED(float2, biases, BIASES);
    SHARED(uint4, pixels, (Stage<SCALE, out_planes(SCALE), TILES>::VECTORS));
    if (threadIdx.x < BIASES) biases.store(threadIdx.x, work.biases.load(threadIdx.x));
    bar_sync(ALL, 2 * ROLE_THREADS);
    if (warp_uniform(threadIdx.x / ROLE_THREADS) == 0) {
        sum_up<SINGLES>(work, rings, biases);
    } else {
        upscale<SCALE>(work, rings, biases, pixels);
    }
}

template <int SCALE>
cudaError_t launch_as(const Work& work, int singles, int64_t blocks, cudaStream_t stream) {
    const auto kernel = singles == 2 ? tail_kernel<SCALE, 2> : tail_kernel<SCALE, 3>;
    return launch(kernel, blocks, 2 * ROLE_THREADS, stream, work);
}

}  // namespace

cudaError_t tail(const TailParams& p, cudaStream_t stream) {
    const bool uint8 = p.dtype == Dtype::uint8;
    const int scale = p.scale;
    if (p.singles < 2 || p.singles > MAX_SINGLES || scale < 2 || scale > 4 ||
        !(uint8 || p.dtype == Dtype::float16)) {
        return cudaErrorInvalidValue;
    }
    int64_t processors = 0;
    if (const auto error = count_processors(processors)) return error;
    const Cut parts = cut(p.n, p.h, p.w, USEFUL, 2, processors);
    if (!fits(p.h, p.w, parts)) return cudaErrorInvalidValue;
    const int64_t words = p.n * p.h * p.w * PLANES * WORDS;
    const int outs = out_planes(scale);
    const auto single = [&](int i) {
        return Global<const uint32_t>(static_cast<const uint32_t*>(p.single[i]), words);
    };
    const Work work{
        {static_cast<const uint32_t*>(p.x), words},
        {single(0), single(1), single(2)},
        {static_cast<const uint4*>(p.weights), 2 * 9 * 2 * 32},
        {static_cast<const uint4*>(p.single_weights), p.singles * 2 * 2 * 32},
        {static_cast<const uint4*>(p.up_weights), 2 * 9 * outs * 32},
        {static_cast<const float2*>(p.biases), 16 + 8 * outs},
        FeatureSteps(p.layout, p.h, p.w),
        {p.out, uint8, p.out_layout, p.n, scale * p.h, scale * p.w, scale, p.clamp},
        parts};
    const auto launch_it = scale == 2   ? launch_as<2>
                           : scale == 3 ? launch_as<3>
                                        : launch_as<4>;
    return launch_it(work, p.singles, std::min(parts.items, processors), stream);
}

}  // namespace espan
