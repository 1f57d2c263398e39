// conv9x9_head_wgmma: the head with wgmma on sm_90a (head_rows.cuh).
//
// A warpgroup streams strips of 64 columns. Image rows are the register operand, 16 pixels per warp
// as in conv9x9_head.cu; weights stay in shared memory. The 9 output rows in progress lie along N,
// in two wgmma of 5 and 4 rows. While a row is multiplied, the previously finished row is stored.
#include "head_rows.cuh"
#include "wgmma/convolve.cuh"
#include "wgmma/copies.cuh"

namespace espan {
namespace {

using namespace head;
using wgmma_rows::load_weights;
using wgmma_rows::wait_past;

constexpr int GROUPS = 2, THREADS = GROUPS * WARPGROUP;
constexpr int SUMS = 16;                    // per row and thread
constexpr int FIRST = 5, SECOND = 4;        // output rows of each wgmma
constexpr int STEPS = 2;                    // of 16 columns of A
constexpr int ROW = 4 * 128;                // bytes of a kernel row: output planes of 8 by 8 halves
constexpr int HALF = (2 * TAPS - 1) * ROW;  // of 8 columns of A
constexpr int WEIGHTS = STEPS * 2 * HALF, BYTES = WEIGHTS + 16;
// Kernel rows are stored as 8, 7, ... 0, 8, ... 1: any 9 in sequence match the rows in progress.
__device__ constexpr int shift(int phase) { return (2 * REACH - phase) % TAPS * ROW; }

template <typename Pixel>
struct Work {
    Global<const Pixel> x;          // (n, 3, h, w), strides in `from`
    Constant<const uint4> weights;  // (STEPS, 2, 17, 4, 8, 8) halves
    Constant<const float2> biases;  // (32 channels)
    Global<uint32_t> out;           // (n, 4, h, w, 4) pairs of halves
    ImageSteps from;
    FeatureSteps to;
    Cut cut;
    float scale;
};

// Stores the lane's words of a finished row.
template <typename Pixel>
__device__ inline void store_row(
    const Work<Pixel>& work, int64_t word, int column, const float (&sum)[SUMS],
    const float2 (&bias)[PLANES]) {
#pragma unroll
    for (int i = 0; i < 2 * PLANES; ++i) {
        const float2 b = bias[i / 2];
        const uint32_t pair =
            pack_half2(sum[2 * i] * work.scale + b.x, sum[2 * i + 1] * work.scale + b.y);
        if (column + i % 2 * 8 >= work.cut.width) continue;
        work.out.store(word + i / 2 * work.to.plane + i % 2 * 8 * WORDS, pair);
    }
}

template <typename Pixel>
__global__ void __launch_bounds__(THREADS, 1) head_wgmma_kernel(Work<Pixel> work) {
    SHARED(__half, memory, THREADS / 32 * RING * 2);
    SHARED_BYTES(start, BYTES);
    let_next_kernel_start();
    if (threadIdx.x == 0) load_weights(start, work.weights, WEIGHTS, start + WEIGHTS);
    float2 bias[PLANES];
#pragma unroll
    for (int i = 0; i < PLANES; ++i) bias[i] = work.biases.load(4 * i + lane_id() % 4);
    bar_sync(0, THREADS);
    wait_past(start + WEIGHTS, 0, "the weights");
    wait_for_earlier_kernels();

    const int warp = warp_uniform(threadIdx.x / 32), group = warp / WARPGROUP_WARPS;
    const int left = warp % WARPGROUP_WARPS * COLUMNS;  // of the strip
    ImageRows<Pixel, SLOTS> image{work.x, work.from, memory, warp * RING};
    float first[FIRST * SUMS], second[SECOND * SUMS], sum[SUMS];
    const uint64_t weights = Matrix{start, HALF}.descriptor();
    for (int64_t i = blockIdx.x + int64_t(gridDim.x) * group; i < work.cut.items;
         i += int64_t(gridDim.x) * GROUPS) {
        const Item it = item(work.cut, i);
        const int x0 = it.strip * WARPGROUP_PIXELS + left, rows = it.rows + 2 * REACH;
        const int column = x0 + lane_id() / 4;
        image.begin(work.cut, it, x0);
#pragma unroll
        for (int j = 0; j < FIRST * SUMS; ++j) first[j] = 0;
#pragma unroll
        for (int j = 0; j < SECOND * SUMS; ++j) second[j] = 0;
        int64_t word = it.n * work.to.image + it.top * work.to.row + int64_t(column) * WORDS +
                       lane_id() % 4;
        // Input row `row` finishes output row `row - 8`.
        const auto advance = [&](auto phase, int row) {
            constexpr int PHASE = decltype(phase)::value, DONE = (PHASE + 1) % TAPS;
            image.step(row, PHASE);
            uint32_t a[STEPS][4];
#pragma unroll
            for (int k = 0; k < STEPS; ++k) image.fragment(a[k], PHASE % SLOTS, k);
            hold(first);
            hold(second);
            wgmma_fence();
#pragma unroll
            for (int k = 0; k < STEPS; ++k) {
                const int from = k * 2 * HALF + shift(PHASE);
                wgmma(first, a[k], moved(weights, from));
                wgmma(second, a[k], moved(weights, from + FIRST * ROW));
            }
            wgmma_commit();
            if (row > 2 * REACH) {
                store_row(work, word, column, sum, bias);
                word += work.to.row;
            }
            wgmma_wait<0>();
            hold(first);
            hold(second);
#pragma unroll
            for (int j = 0; j < SUMS; ++j) {
                float& done = DONE < FIRST ? first[DONE % FIRST * SUMS + j]
                                           : second[(DONE + SECOND - FIRST) % SECOND * SUMS + j];
                take(sum[j], done, 0);
            }
        };
        for (int row = 0; row < rows; row += TAPS) {
            advance(std::integral_constant<int, 0>(), row);
            if (row + 1 < rows) advance(std::integral_constant<int, 1>(), row + 1);
            if (row + 2 < rows) advance(std::integral_constant<int, 2>(), row + 2);
            if (row + 3 < rows) advance(std::integral_constant<int, 3>(), row + 3);
            if (row + 4 < rows) advance(std::integral_constant<int, 4>(), row + 4);
            if (row + 5 < rows) advance(std::integral_constant<int, 5>(), row + 5);
            if (row + 6 < rows) advance(std::integral_constant<int, 6>(), row + 6);
            if (row + 7 < rows) advance(std::integral_constant<int, 7>(), row + 7);
            if (row + 8 < rows) advance(std::integral_constant<int, 8>(), row + 8);
        }
        store_row(work, word, column, sum, bias);
    }
}

template <typename Pixel>
cudaError_t launch_head(const Conv9x9HeadWgmmaParams& p, float scale, cudaStream_t stream) {
    int64_t processors = 0;
    if (const auto error = count_processors(processors)) return error;
    const Cut parts = cut(p.n, p.h, p.w, WARPGROUP_PIXELS, REACH, processors * GROUPS);
    if (!fits(p.h, p.w, parts)) return cudaErrorInvalidValue;
    const Work<Pixel> work{
        {static_cast<const Pixel*>(p.x), p.n * 3 * p.h * p.w},
        {static_cast<const uint4*>(p.weights), WEIGHTS / 16},
        {static_cast<const float2*>(p.biases), 16},
        {static_cast<uint32_t*>(p.out), p.n * p.h * p.w * PLANES * WORDS},
        ImageSteps(p.x_layout, p.h, p.w),
        FeatureSteps(Layout::nc8hw8, p.h, p.w),
        parts,
        scale};
    return launch_overlapping(
        head_wgmma_kernel<Pixel>, std::min(parts.items, processors), THREADS, BYTES, p.overlap,
        stream, work);
}

}  // namespace

cudaError_t conv9x9_head_wgmma(const Conv9x9HeadWgmmaParams& params, cudaStream_t stream) {
    if (params.dtype == Dtype::uint8) return launch_head<uint8_t>(params, 1 / 255.f, stream);
    if (params.dtype == Dtype::float16) return launch_head<__half>(params, 1, stream);
    return cudaErrorInvalidValue;
}

}  // namespace espan
