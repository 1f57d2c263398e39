// conv9x9_head: from the image, uint8 or float16, to the first 32 channels.
//
// In a row of RGB without gaps, the 9 pixels of 3 colours that one row of the kernel multiplies are
// 27 consecutive halves. With 5 more, whose weights are 0, they are the 32 columns of a matrix
// product whose rows are pixels. What is left is a vertical convolution of 9 taps. It streams rows:
// each is accumulated into the 9 output rows it reaches, which are open in registers.
//
// A pixel can begin at an odd half, but a register holds an aligned pair: pixels of odd columns are
// read from a copy of the row that is shifted by one half. Warps work in pairs on 16 columns, each
// with the weights of 16 output channels. Each warp loads its own rows, so none waits for another.
#include "common/ends.cuh"

namespace espan {
namespace {

using namespace ends;

constexpr int WARPS = 8, PAIRS = WARPS / 2;
constexpr int COLUMNS = 16, REACH = 4, TAPS = 2 * REACH + 1;
constexpr int SLOTS = 3;  // rows of a ring, and rows being loaded from memory
// Words of a row, and where its shifted copy begins: in the other half of the banks.
constexpr int SLOT = 96, COPY = 48;

template <typename Pixel>
struct Work {
    Global<const Pixel> x;        // (n, 3, h, w), steps in `from`
    Global<const uint4> weights;  // (2, 9, 2, 32 lanes, 8 halves)
    Global<const float2> biases;  // (32 channels)
    Global<uint32_t> out;         // (n, 32, h, w) halves, steps in `to`
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
    // The lane's first pair of pixel g; and which of columns 24 and up belong to the 9 pixels.
    const int a_word = ring + (3 * g - g % 2) / 2 + g % 2 * COPY + q;
    const uint32_t kept = q == 0 ? 0xffffffff : q == 1 ? 0xffff : 0;

    for (int64_t i = blockIdx.x + int64_t(gridDim.x) * (warp / 2); i < work.cut.items;
         i += int64_t(gridDim.x) * PAIRS) {
        const Item it = item(work.cut, i);
        const int x0 = it.strip * COLUMNS, top = it.top - REACH, rows = it.rows + 2 * REACH;

        // A lane loads the pixel of column x0 - REACH + lane; 0 beyond the reach of 16 pixels.
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
        // The last rows of the previous item have been read.
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
cudaError_t launch_head(const Conv9x9HeadParams& p, float scale, cudaStream_t stream) {
    int64_t processors = 0;
    if (const auto error = count_processors(processors)) return error;
    const Cut parts = cut(p.n, p.h, p.w, COLUMNS, REACH, processors * PAIRS);
    if (!fits(p.h, p.w, parts)) return cudaErrorInvalidValue;
    const Work<Pixel> work{
        {static_cast<const Pixel*>(p.x), p.n * 3 * p.h * p.w},
        {static_cast<const uint4*>(p.weights), 2 * TAPS * 2 * 32},
        {static_cast<const float2*>(p.biases), 16},
        {static_cast<uint32_t*>(p.out), p.n * p.h * p.w * PLANES * WORDS},
        PictureSteps(p.x_layout, p.h, p.w),
        FeatureSteps(p.layout, p.h, p.w),
        parts,
        scale};
    return launch(
        head_kernel<Pixel>, std::min(parts.items, processors), 32 * WARPS, stream, work);
}

}  // namespace

cudaError_t conv9x9_head(const Conv9x9HeadParams& params, cudaStream_t stream) {
    // The scale of uint8 goes into the sums: in float16 neither weights nor x / 255 are exact.
    if (params.dtype == Dtype::uint8) return launch_head<uint8_t>(params, 1 / 255.f, stream);
    if (params.dtype == Dtype::float16) return launch_head<__half>(params, 1, stream);
    return cudaErrorInvalidValue;
}

}  // namespace espan
