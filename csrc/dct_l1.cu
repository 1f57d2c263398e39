// dct_l1: the sum of the absolute DCT coefficients of an image, and the gradient of their mean.
//
// Three passes: transform the rows; transform the columns, and the signs of the coefficients back
// along the columns; transform the rows back. Each pass reads lines of numbers (dct_l1.cuh) and
// writes them transposed, so that a column becomes a line of the next pass. Between passes a line
// holds its even coefficients, then its odd ones.
#include <algorithm>

#include "dct_l1.cuh"

namespace espan {
namespace {

using namespace dct;

// Transforms the rows of a - b, (strips, h, w) in blocks of block_w, and writes columns as lines.
template <typename T>
__global__ void __launch_bounds__(THREADS, 2) across_kernel(
    Lines lines, Places places, Global<const T> a, Global<const T> b, Global<const uint4> matrix,
    Global<float> out) {
    DYNAMIC_SHARED(uint32_t, parts, lines.words());
    split_lines(lines, parts, [&](int line, int i) -> EvenOdd {
        const auto difference = [&](int place) {
            const int at = line * lines.n + place;
            return to_float(a.load(at)) - to_float(b.load(at));
        };
        const float near = i < lines.even ? difference(i) : 0;
        const float far = i < lines.odd ? difference(lines.n - 1 - i) : 0;
        return {near + far, near - far};
    });
    Sums sums = {};
    multiply<false>(lines, parts, matrix, sums);
    for_each_sum(lines, sums, [&](int line, int i, float even, float odd) {
        const int at = places.first(line);
        if (i < lines.even) out.store(at + i * places.step, even);
        if (i < lines.odd) out.store(at + (lines.even + i) * places.step, odd);
    });
}

// Transforms columns and stores each thread's sum of absolute coefficients in `partial` (blocks,
// threads). With a gradient, also transforms the signs back along the columns.
__global__ void __launch_bounds__(THREADS, 2) down_kernel(
    Lines lines, Places places, Global<const float> in, Global<const uint4> matrix,
    Global<const uint4> transposed, Global<float> partial, Global<float> out, bool with_gradient) {
    DYNAMIC_SHARED(uint32_t, parts, lines.words());
    split_lines(lines, parts, [&](int line, int i) -> EvenOdd {
        const int at = line * lines.n;
        const float near = i < lines.even ? in.load(at + i) : 0;
        const float far = i < lines.odd ? in.load(at + lines.n - 1 - i) : 0;
        return {near + far, near - far};
    });
    Sums sums = {};
    multiply<false>(lines, parts, matrix, sums);
    float size = 0;
    for_each_sum(lines, sums, [&](int, int, float even, float odd) {
        size += fabsf(even) + fabsf(odd);
    });
    partial.store(blockIdx.x * lines.threads + threadIdx.x, size);
    if (!with_gradient) return;
    // All warps have read the lines; the signs overwrite the high parts.
    bar_sync(0, lines.threads);
    const Part part(lines);
    const auto sign = [](float x) { return float(x > 0) - float(x < 0); };
#pragma unroll
    for (int c = 0; c < COLUMN_TILES; ++c) {
        const int tile = part.column / 8 + c;
        if (tile >= lines.padded / 8) break;
#pragma unroll
        for (int i = 0; i < 4 * ROW_TILES; ++i) {
            const int odd = i / (2 * ROW_TILES), t = i / 2 % ROW_TILES, of = i % 2 * 2;
            const float* pair = &sums[odd][t][c][of];
            const int row = part.row + 16 * t + 4 * of + part.g;
            const int word = odd * lines.half() + tile * lines.plane() + 4 * row + part.q;
            parts.store(word, pack_half2(sign(pair[0]), sign(pair[1])));
        }
    }
    bar_sync(0, lines.threads);
    Sums back = {};
    multiply<true>(lines, parts, transposed, back);
    store_lines(lines, back, places, 1, out);
}

// Transforms rows of coefficients back to (strips, h, w), times `scale`.
template <typename T>
__global__ void __launch_bounds__(THREADS, 2) back_kernel(
    Lines lines, Places places, Global<const float> in, Global<const uint4> transposed, float scale,
    Global<T> out) {
    DYNAMIC_SHARED(uint32_t, parts, lines.words());
    split_lines(lines, parts, [&](int line, int i) -> EvenOdd {
        const int at = line * lines.n + i;
        return {
            i < lines.even ? in.load(at) : 0, i < lines.odd ? in.load(at + lines.even) : 0};
    });
    Sums sums = {};
    multiply<false>(lines, parts, transposed, sums);
    store_lines(lines, sums, places, scale, out);
}

// The lines of the passes over strips of (h, w) in blocks of (h, block_w).
struct Passes {
    int blocks, size;  // blocks per strip, total number of elements
    Lines across, down;

    Passes(int64_t strips, int64_t h, int64_t w, int64_t block_w)
        : blocks(int(w / block_w)),
          size(int(strips * h * w)),
          across(int(block_w), int(strips * h * blocks)),
          down(int(h), int(strips * w)) {}
    int64_t partials() const { return int64_t(down.blocks()) * down.threads; }
};

// The number of strips processed together, small enough for intermediate results to stay in L2.
int64_t together(int64_t strips, int64_t h, int64_t w) {
    constexpr int64_t NUMBERS = 1 << 22;
    return std::min(strips, std::max<int64_t>(1, NUMBERS / (h * w)));
}

}  // namespace

DctScratch dct_l1_scratch(int64_t strips, int64_t h, int64_t w, int64_t block_w) {
    const int64_t chunk = together(strips, h, w), rest = strips % chunk;
    const auto partials = [=](int64_t strips) { return Passes(strips, h, w, block_w).partials(); };
    return {2 * chunk * h * w, strips / chunk * partials(chunk) + (rest ? partials(rest) : 0)};
}

cudaError_t dct_l1(const DctL1Params& p, cudaStream_t stream) {
    return with_type(p.dtype, [&](auto zero) -> cudaError_t {
        using T = decltype(zero);
        const int64_t chunk = together(p.strips, p.h, p.w);
        auto* columns = static_cast<float*>(p.between);
        auto* rows = columns + chunk * p.h * p.w;
        auto* sums = static_cast<float*>(p.partial);
        for (int64_t done = 0; done < p.strips; done += chunk) {
            const Passes pass(std::min(chunk, p.strips - done), p.h, p.w, p.block_w);
            const int64_t start = done * p.h * p.w, size = pass.size;
            // A matrix (which = 0) or its transpose (1).
            const auto matrix = [](const void* both, const Lines& lines, int which) {
                const int64_t tiles = lines.warps_across * COLUMN_TILES;
                const int64_t words = 2 * (lines.padded / STEP) * tiles * 32;
                return Global(static_cast<const uint4*>(both) + which * words, words);
            };
            const int h = int(p.h), w = int(p.w), block_w = int(p.block_w);
            const Places to_columns{unsigned(h), unsigned(pass.blocks), h * w, 1, h * block_w, h};
            const Places to_rows{unsigned(pass.blocks), unsigned(block_w), h * w, block_w, 1, w};
            const Places in_place{1, 1, block_w, 0, 0, 1};
            if (const auto error = launch_with_shared(
                    across_kernel<T>, pass.across.blocks(), pass.across.threads,
                    pass.across.bytes(), stream, pass.across, to_columns,
                    Global(static_cast<const T*>(p.a) + start, size),
                    Global(static_cast<const T*>(p.b) + start, size),
                    matrix(p.across, pass.across, 0), Global(columns, size))) {
                return error;
            }
            if (const auto error = launch_with_shared(
                    down_kernel, pass.down.blocks(), pass.down.threads, pass.down.bytes(), stream,
                    pass.down, to_rows, Global<const float>(columns, size),
                    matrix(p.down, pass.down, 0), matrix(p.down, pass.down, 1),
                    Global(sums, pass.partials()), Global(rows, size), p.gradient != nullptr)) {
                return error;
            }
            sums += pass.partials();
            if (!p.gradient) continue;
            if (const auto error = launch_with_shared(
                    back_kernel<T>, pass.across.blocks(), pass.across.threads,
                    pass.across.bytes(), stream, pass.across, in_place,
                    Global<const float>(rows, size), matrix(p.across, pass.across, 1), p.scale,
                    Global(static_cast<T*>(p.gradient) + start, size))) {
                return error;
            }
        }
        return cudaSuccess;
    });
}

}  // namespace espan
