// conv9x9_head: from a uint8 or float16 image to the first 32 channels (head_rows.cuh).
//
// It streams rows: each is accumulated into the 9 output rows that it contributes to, whose sums
// are in registers. Warps work in pairs on 16 columns, each with the weights of 16 output channels.
#include "head_rows.cuh"

namespace espan {
namespace {

using namespace head;

constexpr int WARPS = 8, PAIRS = WARPS / 2;

template <typename Pixel>
struct Work {
    Global<const Pixel> x;        // (n, 3, h, w), strides in `from`
    Global<const uint4> weights;  // (2, 9, 2, 32 lanes, 8 halves)
    Global<const float2> biases;  // (32 channels)
    Global<uint32_t> out;         // (n, 32, h, w) halves, strides in `to`
    ImageSteps from;
    FeatureSteps to;
    Cut cut;
    float scale;
};

template <typename Pixel>
__global__ void __launch_bounds__(32 * WARPS, 1) head_kernel(Work<Pixel> work) {
    SHARED(__half, memory, WARPS * RING * 2);
    const int warp = warp_uniform(threadIdx.x / 32);
    const int half = warp % 2;  // output channels 16 * half to 16 * half + 15
    const int lane = lane_id(), g = lane / 4, q = lane % 4;

    uint4 w[TAPS][2];  // [kernel row][8 output channels]
#pragma unroll
    for (int i = 0; i < 2 * TAPS; ++i) {
        w[i / 2][i % 2] = work.weights.load((half * 2 * TAPS + i) * 32 + lane);
    }
    float2 bias[2];
    for (int c = 0; c < 2; ++c) bias[c] = work.biases.load((2 * half + c) * 4 + q);

    ImageRows<Pixel, TAPS> image{work.x, work.from, memory, warp * RING};
    for (int64_t i = blockIdx.x + int64_t(gridDim.x) * (warp / 2); i < work.cut.items;
         i += int64_t(gridDim.x) * PAIRS) {
        const Item it = item(work.cut, i);
        const int x0 = it.strip * COLUMNS, rows = it.rows + 2 * REACH;
        image.begin(work.cut, it, x0);

        int64_t out_word = it.n * work.to.image + 2 * half * work.to.plane +
                           it.top * work.to.row + int64_t(x0 + g) * work.to.pixel + q;
        float acc[TAPS][2][4] = {};  // [output row in progress][8 channels]
        for (int start = 0; start < rows; start += TAPS) {
#pragma unroll
            for (int u = 0; u < TAPS; ++u) {
                // Input row `row` starts output row `row`, in acc[u], and finishes row - 8.
                const int row = start + u;
                if (row >= rows) break;
                const int finished = (u + 1) % TAPS;
                image.step(row, u);
#pragma unroll
                for (int j = 0; j < 8; ++j) acc[u][j / 4][j % 4] = 0;
#pragma unroll
                for (int k = 0; k < 2; ++k) {
                    uint32_t a[4];
                    image.fragment(a, u % SLOTS, k);
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
        ImageSteps(p.x_layout, p.h, p.w),
        FeatureSteps(p.layout, p.h, p.w),
        parts,
        scale};
    return launch(
        head_kernel<Pixel>, std::min(parts.items, processors), 32 * WARPS, stream, work);
}

}  // namespace

cudaError_t conv9x9_head(const Conv9x9HeadParams& params, cudaStream_t stream) {
    // The scale of uint8 applies to the sums, as float16 weights or x / 255 would not be exact.
    if (params.dtype == Dtype::uint8) return launch_head<uint8_t>(params, 1 / 255.f, stream);
    if (params.dtype == Dtype::float16) return launch_head<__half>(params, 1, stream);
    return cudaErrorInvalidValue;
}

}  // namespace espan
