// dct_l1: the sizes of a picture's DCT coefficients, summed, and the gradient of their mean.
//
// Three passes: rows to coefficients; columns to coefficients, and their signs back along the
// columns; rows back. Each reads lines of numbers (dct_l1.cuh) and writes them so that what it took
// for a column is a line to the next. Between passes a line holds its even coefficients, then its
// odd ones.
#include <algorithm>

#include "dct_l1.cuh"

namespace espan {
namespace {

using namespace dct;

// Rows of a - b to coefficients.
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

// Columns to coefficients, the sum of each thread's to `partial`; with a gradient, their signs
// back along the columns.
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
    // All warps have read the lines: signs take the place of the high parts.
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

// Rows of coefficients back, times `scale`.
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

// What passes over strips of (h, w), in blocks of (h, block_w), work on.
struct Passes {
    int blocks, size;  // blocks in a strip, numbers in all
    Lines across, down;

    Passes(int64_t strips, int64_t h, int64_t w, int64_t block_w)
        : blocks(int(w / block_w)),
          size(int(strips * h * w)),
          across(int(block_w), int(strips * h * blocks)),
          down(int(h), int(strips * w)) {}
    int64_t partials() const { return int64_t(down.blocks()) * down.threads; }
};

// Strips that go through all passes together: an L2 cache holds what lies between these.
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

cudaError_t dct_l1(
    const void* a, const void* b, const void* across, const void* down, void* between,
    void* partial, void* gradient, int64_t strips, int64_t h, int64_t w, int64_t block_w,
    float scale, Dtype dtype, cudaStream_t stream) {
    return with_type(dtype, [=](auto zero) -> cudaError_t {
        using T = decltype(zero);
        const int64_t chunk = together(strips, h, w);
        auto* columns = static_cast<float*>(between);
        auto* rows = columns + chunk * h * w;
        auto* sums = static_cast<float*>(partial);
        for (int64_t done = 0; done < strips; done += chunk) {
            const Passes pass(std::min(chunk, strips - done), h, w, block_w);
            const int64_t start = done * h * w, size = pass.size;
            // A matrix and its transpose, as the warps read them.
            const auto matrix = [](const void* both, const Lines& lines, int which) {
                const int64_t tiles = lines.warps_across * COLUMN_TILES;
                const int64_t words = 2 * (lines.padded / STEP) * tiles * 32;
                return Global(static_cast<const uint4*>(both) + which * words, words);
            };
            const int area = int(h * w);
            const Places to_columns{
                unsigned(h), unsigned(pass.blocks), area, 1, int(h * block_w), int(h)};
            const Places to_rows{
                unsigned(pass.blocks), unsigned(block_w), area, int(block_w), 1, int(w)};
            const Places in_place{1, 1, int(block_w), 0, 0, 1};
            if (const auto error = launch_with_shared(
                    across_kernel<T>, pass.across.blocks(), pass.across.threads,
                    pass.across.bytes(), stream, pass.across, to_columns,
                    Global(static_cast<const T*>(a) + start, size),
                    Global(static_cast<const T*>(b) + start, size), matrix(across, pass.across, 0),
                    Global(columns, size))) {
                return error;
            }
            if (const auto error = launch_with_shared(
                    down_kernel, pass.down.blocks(), pass.down.threads, pass.down.bytes(), stream,
                    pass.down, to_rows, Global<const float>(columns, size),
                    matrix(down, pass.down, 0), matrix(down, pass.down, 1),
                    Global(sums, pass.partials()), Global(rows, size), gradient != nullptr)) {
                return error;
            }
            sums += pass.partials();
            if (!gradient) continue;
            if (const auto error = launch_with_shared(
                    back_kernel<T>, pass.across.blocks(), pass.across.threads,
                    pass.across.bytes(), stream, pass.across, in_place,
                    Global<const float>(rows, size), matrix(across, pass.across, 1), scale,
                    Global(static_cast<T*>(gradient) + start, size))) {
                return error;
            }
        }
        return cudaSuccess;
    });
}

}  // namespace espan
