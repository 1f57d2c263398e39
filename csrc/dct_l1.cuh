// Shared by the passes of dct_l1.cu: lines of numbers times the DCT matrix, exact to float32.
//
// The transform of n numbers x splits into two of half the size: even coefficients are sums over
// x[i] + x[n-1-i], odd ones over x[i] - x[n-1-i], i < n / 2. In the inverse, the sums e[i] and o[i]
// over even and odd coefficients give x[i] = e[i] + o[i] and x[n-1-i] = e[i] - o[i].
//
// A number is split into two float16: high, and its rounding error times 2^11, low. The product of
// two low parts is below float32 rounding. Tensor cores sum the other three products over 16
// numbers; these sums are accumulated in float32.
#pragma once

#include "common/ptx.cuh"

namespace espan::dct {

constexpr float SPLIT = 2048;
constexpr int THREADS = 256;      // maximum per block
constexpr int WARP_ROWS = 32;     // lines per warp
constexpr int WARP_COLUMNS = 32;  // even coefficients per warp, and as many odd ones
constexpr int STEP = 16;          // numbers of a line in one mma
constexpr int ROW_TILES = WARP_ROWS / 16, COLUMN_TILES = WARP_COLUMNS / 8;

using Sums = float[2][ROW_TILES][COLUMN_TILES][4];  // [even, odd]

struct EvenOdd {
    float even, odd;
};

// Lines to transform, and how a thread block divides its `rows` lines among warps.
struct Lines {
    int n, count;
    int even, odd;  // coefficients
    int padded;     // length of a half, zero-padded to a multiple of STEP
    int warps_across, warps_down;
    int rows, threads;

    Lines(int n, int count) : n(n), count(count), even(n - n / 2), odd(n / 2) {
        padded = ceil_div(even, STEP) * STEP;
        warps_across = ceil_div(even, WARP_COLUMNS);
        warps_down = THREADS / 32 / warps_across;
        rows = warps_down * WARP_ROWS;
        threads = 32 * warps_down * warps_across;
    }
    int blocks() const { return ceil_div(count, rows); }
    int bytes() const { return 4 * words(); }
    // Shared memory is [high, low][even, odd][8 places][row][4 words of 2 places], padded by 16
    // words after every 8 places, so that 16 places of 4 rows are in different banks.
    __host__ __device__ int plane() const { return 4 * rows + 16; }
    __host__ __device__ int half() const { return padded / 8 * plane(); }
    __host__ __device__ int words() const { return 4 * half(); }
};

// The output positions of line (t * down + a) * across + b, with stride `step`.
struct Places {
    unsigned down, across;
    int t_step, a_step, b_step, step;

    __device__ int first(unsigned line) const {
        const unsigned rest = line / across, t = rest / down;
        return int(t) * t_step + int(rest - t * down) * a_step +
               int(line - rest * across) * b_step;
    }
};

// This thread's part of the block's lines. Recomputed where needed to save registers.
struct Part {
    int first;        // line of the block
    int row, column;  // the warp's first row in the block and first column in either half
    int g, q;         // lane / 4 and lane % 4, as in fragments

    __device__ explicit Part(const Lines& lines) : first(blockIdx.x * lines.rows) {
        const int warp = warp_uniform(threadIdx.x / 32);
        row = warp % lines.warps_down * WARP_ROWS;
        column = warp / lines.warps_down * WARP_COLUMNS;
        g = lane_id() / 4;
        q = lane_id() % 4;
    }
};

// Loads the block's existing lines into shared memory; products of other lines are not used.
// read(line, i) returns the input of the even and the odd half of the transform at place i.
template <typename Read>
__device__ void split_lines(const Lines& lines, Shared<uint32_t> parts, Read read) {
    const int first = blockIdx.x * lines.rows, rows = min(lines.rows, lines.count - first);
    // 8 lanes per line.
    for (int row = threadIdx.x / 8; row < rows; row += lines.threads / 8) {
#pragma unroll 4
        for (int pair = threadIdx.x % 8; pair < lines.padded / 2; pair += 8) {
            const EvenOdd x = read(first + row, 2 * pair), y = read(first + row, 2 * pair + 1);
            const int word = pair / 4 * lines.plane() + 4 * row + pair % 4;
            const auto store = [&](int odd, float a, float b) {
                const uint32_t high = pack_half2(a, b);
                const float2 kept = unpack_half2(high);
                const uint32_t low = pack_half2((a - kept.x) * SPLIT, (b - kept.y) * SPLIT);
                parts.store(odd * lines.half() + word, high);
                parts.store((2 + odd) * lines.half() + word, low);
            };
            store(0, x.even, y.even);
            store(1, x.odd, y.odd);
        }
    }
    bar_sync(0, lines.threads);
}

// Adds the warp's lines times its columns of matrix [even, odd][step][8 columns][lane]: high parts
// b0 and b1, then their low parts. EXACT: the lines have no low parts.
template <bool EXACT>
__device__ void multiply(
    const Lines& lines, Shared<uint32_t> parts, Global<const uint4> matrix,
    Sums& sums) {
    const Part part(lines);
    const int steps = lines.padded / STEP, tiles = lines.warps_across * COLUMN_TILES;
    const int lane = 4 * part.g + part.q;
    // The lane's row of an ldmatrix: line lane % 16, starting at place 8 * (lane / 16).
    const int from = lane / 16 * lines.plane() + 4 * (part.row + lane % 16);
    for (int step = 0; step < steps; ++step) {
#pragma unroll
        for (int odd = 0; odd < 2; ++odd) {
            const int first = ((odd * steps + step) * tiles + part.column / 8) * 32 + lane;
            uint4 b[COLUMN_TILES];
#pragma unroll
            for (int c = 0; c < COLUMN_TILES; ++c) b[c] = matrix.load(first + 32 * c);
            const int word = from + odd * lines.half() + 2 * step * lines.plane();
            uint32_t high[ROW_TILES][4], low[ROW_TILES][4];
#pragma unroll
            for (int t = 0; t < ROW_TILES; ++t) {
                ldmatrix_x4(high[t], parts, word + 64 * t);
                if constexpr (!EXACT) {
                    ldmatrix_x4(low[t], parts, word + 64 * t + 2 * lines.half());
                }
            }
#pragma unroll
            for (int c = 0; c < COLUMN_TILES; ++c) {
#pragma unroll
                for (int t = 0; t < ROW_TILES; ++t) {
                    float large[4] = {}, small[4] = {};
                    mma_m16n8k16(large, high[t], b[c].x, b[c].y);
                    mma_m16n8k16(small, high[t], b[c].z, b[c].w);
                    if constexpr (!EXACT) mma_m16n8k16(small, low[t], b[c].x, b[c].y);
#pragma unroll
                    for (int j = 0; j < 4; ++j) {
                        sums[odd][t][c][j] += fmaf(small[j], 1 / SPLIT, large[j]);
                    }
                }
            }
        }
    }
}

// Calls run(line, place, even sum, odd sum) for this lane's sums of existing lines.
template <typename Run>
__device__ void for_each_sum(const Lines& lines, const Sums& sums, Run run) {
    const Part part(lines);
#pragma unroll
    for (int i = 0; i < 2 * ROW_TILES; ++i) {
        const int line = part.first + part.row + 8 * i + part.g;
        if (line >= lines.count) continue;
#pragma unroll
        for (int j = 0; j < 2 * COLUMN_TILES; ++j) {
            const int place = part.column + j / 2 * 8 + 2 * part.q + j % 2;
            const int of = 2 * (i % 2) + j % 2;
            run(line, place, sums[0][i / 2][j / 2][of], sums[1][i / 2][j / 2][of]);
        }
    }
}

// Combines the sums of the even and the odd half and stores them as lines.
template <typename T>
__device__ void store_lines(
    const Lines& lines, const Sums& sums, const Places& places, float scale,
    Global<T> out) {
    for_each_sum(lines, sums, [&](int line, int i, float even, float odd) {
        const int at = places.first(line);
        T value;
        if (i < lines.even) {
            from_float(value, (even + odd) * scale);
            out.store(at + i * places.step, value);
        }
        if (i < lines.odd) {
            from_float(value, (even - odd) * scale);
            out.store(at + (lines.n - 1 - i) * places.step, value);
        }
    });
}

}  // namespace espan::dct
