// conv9x9_head: from the picture, uint8 or float16, to the first 32 channels.
//
// A row of RGB without gaps holds what one row of the kernel multiplies, 9 pixels of 3 colours, as
// 27 halves in a row: 5 more, whose weights are 0, make them the 32 columns of a matrix product
// whose rows are pixels. So a vertical convolution of 9 taps is left. It streams rows: each goes
// into the 9 rows of output it reaches, whose sums are open in registers.
//
// A pixel begins at any half, a register with a pair of them at even ones: pixels of odd columns
// are read from a copy of the row, one half further. Warps work in pairs, one with the weights of
// 16 output channels each, on 16 columns; each keeps its own rows and none waits for another.
#include "common/ends.cuh"

namespace espan {
namespace {

using namespace ends;

constexpr int WARPS = 8, PAIRS = WARPS / 2;
constexpr int COLUMNS = 16, REACH = 4, TAPS = 2 * REACH + 1;
constexpr int SLOTS = 3;  // rows of a ring, and rows on their way from memory
// Words of a row and where in it the copy is: in the other half of the banks.
constexpr int SLOT = 96, COPY = 48;

template <typename Pixel>
struct Work {
    Global<const Pixel> x;
    Global<const uint4> weights;  // (2, 9, 2, 32 lanes, 8 halves)
    Global<const float2> biases;  // (32 channels)
    Global<uint32_t> out;
    PictureSteps from;
    FeatureSteps to;
    Cut cut;
    float scale;
};

__device__ inline __half to_half(__half value) { return value; }
__device__ inline __half to_half(uint8_t value) {
    __half half;
    from_float(half, value);
    return half;
}

template <typename Pixel>
__global__ void __launch_bounds__(32 * WARPS, 1) head_kernel(Work<Pixel> work) {
    SHARED(__half, memory, WARPS * SLOTS * SLOT * 2);
    const Shared<uint32_t> rings = memory.template as<uint32_t>();
    const int warp = warp_uniform(threadIdx.x / 32);
    const int half = warp % 2;  // output channels from 16 * half on
    const int lane = lane_id(), g = lane / 4, q = lane % 4;
    const int ring = warp * SLOTS * SLOT;

    uint4 w[TAPS][2];  // [row of the kernel][8 channels out]
#pragma unroll
    for (int i = 0; i < 2 * TAPS; ++i) {
        w[i / 2][i % 2] = work.weights.load((half * 2 * TAPS + i) * 32 + lane);
    }
    float2 bias[2];
    for (int c = 0; c < 2; ++c) bias[c] = work.biases.load((2 * half + c) * 4 + q);
    // The first pair that this lane multiplies of pixel g, and of columns 24 on which are pixels.
    const int a_word = ring + (3 * g - g % 2) / 2 + g % 2 * COPY + q;
    const uint32_t kept = q == 0 ? 0xffffffff : q == 1 ? 0xffff : 0;

    for (int64_t i = blockIdx.x + int64_t(gridDim.x) * (warp / 2); i < work.cut.items;
         i += int64_t(gridDim.x) * PAIRS) {
        const Item it = item(work.cut, i);
        const int x0 = it.strip * COLUMNS, top = it.top - REACH, rows = it.rows + 2 * REACH;

        // A lane loads the pixel of column x0 - REACH + lane, 0 if 16 pixels reach less far.
        const int column = x0 - REACH + lane;
        const bool has_column =
            lane < COLUMNS + 2 * REACH && unsigned(column) < unsigned(work.cut.width);
        int64_t at = it.n * work.from.picture + top * work.from.row +
                     int64_t(column) * work.from.pixel;
        Pixel next[SLOTS][3];
        const auto load = [&](int row, Pixel(&pixel)[3]) {
            const bool inside = has_column && unsigned(top + row) < unsigned(work.cut.height);
#pragma unroll
            for (int c = 0; c < 3; ++c) {
                pixel[c] = inside ? work.x.load(at + c * work.from.colour) : Pixel{};
            }
            at += work.from.row;
        };
        const auto store = [&](int slot, const Pixel(&pixel)[3]) {
#pragma unroll
            for (int c = 0; c < 3; ++c) {
                const int word = 2 * (ring + slot * SLOT) + 3 * lane + c;
                const __half value = to_half(pixel[c]);
                memory.store(word, value);
                memory.store(word + 2 * COPY - 1, value);
            }
        };
#pragma unroll
        for (int slot = 0; slot < SLOTS; ++slot) load(slot, next[slot]);
        // The last rows of the item before have been read.
        warp_sync();
        store(0, next[0]);

        int64_t out_word = it.n * work.to.picture + 2 * half * work.to.plane +
                           it.top * work.to.row + int64_t(x0 + g) * work.to.pixel + q;
        float acc[TAPS][2][4] = {};  // [open row][8 channels]
        for (int start = 0; start < rows; start += TAPS) {
#pragma unroll
            for (int u = 0; u < TAPS; ++u) {
                // Row row of the input opens row row of the output, in acc[u], and finishes row
                // row - 8.
                const int row = start + u;
                if (row >= rows) break;
                const int finished = (u + 1) % TAPS;
                store((u + 1) % SLOTS, next[(u + 1) % SLOTS]);
                load(row + SLOTS, next[u % SLOTS]);
                warp_sync();
#pragma unroll
                for (int j = 0; j < 8; ++j) acc[u][j / 4][j % 4] = 0;
#pragma unroll
                for (int k = 0; k < 2; ++k) {
                    // 8 pixels further are 12 words further, 8 columns further 4 words.
                    const int word = a_word + u % SLOTS * SLOT + 8 * k;
                    uint32_t a[4] = {
                        rings.load(word), rings.load(word + 12), rings.load(word + 4),
                        rings.load(word + 16)};
                    if (k == 1) {
                        a[2] &= kept;
                        a[3] &= kept;
                    }
#pragma unroll
                    for (int ky = 0; ky < TAPS; ++ky) {
#pragma unroll
                        for (int c = 0; c < 2; ++c) {
                            const uint4& b = w[ky][c];
                            mma_m16n8k16(
                                acc[(u + TAPS - ky) % TAPS][c], a, k ? b.z : b.x, k ? b.w : b.y);
                        }
                    }
                }
                if (row < 2 * REACH) continue;
#pragma unroll
                for (int c = 0; c < 2; ++c) {
                    const float* sum = acc[finished][c];
#pragma unroll
                    for (int j = 0; j < 2; ++j) {
                        const uint32_t pair = pack_half2(
                            sum[2 * j] * work.scale + bias[c].x,
                            sum[2 * j + 1] * work.scale + bias[c].y);
                        const int64_t word = out_word + c * work.to.plane + 8 * j * work.to.pixel;
                        if (x0 + g + 8 * j < work.cut.width) work.out.store(word, pair);
                    }
                }
                out_word += work.to.row;
            }
        }
    }
}

template <typename Pixel>
cudaError_t launch_head(
    const void* x, const void* weights, const void* biases, void* out, float scale, int64_t n,
    int64_t h, int64_t w, Layout x_layout, Layout layout, cudaStream_t stream) {
    int64_t processors = 0;
    if (const auto error = count_processors(processors)) return error;
    const Cut parts = cut(n, h, w, COLUMNS, REACH, processors * PAIRS);
    if (!fits(h, w, parts)) return cudaErrorInvalidValue;
    const Work<Pixel> work{
        {static_cast<const Pixel*>(x), n * 3 * h * w},
        {static_cast<const uint4*>(weights), 2 * TAPS * 2 * 32},
        {static_cast<const float2*>(biases), 16},
        {static_cast<uint32_t*>(out), n * h * w * PLANES * WORDS},
        PictureSteps(x_layout, h, w),
        FeatureSteps(layout, h, w),
        parts,
        scale};
    return launch(
        head_kernel<Pixel>, std::min(parts.items, processors), 32 * WARPS, stream, work);
}

}  // namespace

cudaError_t conv9x9_head(
    const void* x, const void* weights, const void* biases, void* out, Dtype dtype, int64_t n,
    int64_t h, int64_t w, Layout x_layout, Layout layout, cudaStream_t stream) {
    // The scale of uint8 goes into the sums: in float16 neither weights nor x / 255 are exact.
    if (dtype == Dtype::uint8) {
        return launch_head<uint8_t>(
            x, weights, biases, out, 1 / 255.f, n, h, w, x_layout, layout, stream);
    }
    if (dtype == Dtype::float16) {
        return launch_head<__half>(
            x, weights, biases, out, 1, n, h, w, x_layout, layout, stream);
    }
    return cudaErrorInvalidValue;
}

}  // namespace espan
