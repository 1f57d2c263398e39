// Shared by the passes of dct_l1.cu: lines of numbers times the DCT matrix, exact to float32.
//
// The transform of n numbers x splits into two of half the size: even coefficients are sums over
// x[i] + x[n-1-i], odd ones over x[i] - x[n-1-i], i < n / 2. In the inverse, the sums e[i] and o[i]
// over even and odd coefficients give x[i] = e[i] + o[i] and x[n-1-i] = e[i] - o[i].
//
// A number is split into two float16: high, and its rounding error times 2^11, low. The product of
// two low parts is below float32 rounding. Tensor cores sum the other three products over 16
// numbers; these sums are accumulated in float32.
//
// A warp multiplies many lines with 32 columns of one half of the matrix, so that a block of lines
// of more than 128 numbers reads each number of the matrix once. The sums of both halves then
// replace the lines in shared memory, from where they are stored in memory order.
#pragma once

#include <algorithm>

#include "common/ptx.cuh"

namespace espan::dct {

constexpr float SPLIT = 2048;
constexpr int WARP_COLUMNS = 32;  // coefficients of one half per warp
constexpr int STEP = 16;          // numbers of a line in one mma
constexpr int COLUMN_TILES = WARP_COLUMNS / 8;

template <int ROW_TILES>
using Sums = float[ROW_TILES][COLUMN_TILES][4];

struct EvenOdd {
    float even, odd;
};

// Lines of n numbers, and how a block of `threads` threads divides its `rows` lines among warps.
// Parameters of the kernel, so that warps do not compute them.
struct Lines {
    int n;
    int even, odd;  // coefficients
    int padded;     // length of a half, zero-padded to a multiple of STEP
    int warps_across, warps_down;  // per half; further warps only load and store
    int rows, threads;
    int down_bits, row_bits;  // warps_down and rows are powers of two
    // Shared memory holds lines as [high, low][even, odd][8 places][row][4 words of 2 places],
    // padded by 4 words after every 8 places, so that neighbouring places are in different banks.
    int plane, half;  // words per 8 places and per half
    // Later it holds sums, by line: [row][even, odd][place], or by place: [even, odd][place][row].
    int line_pitch, place_pitch;
    int words;       // of shared memory
    int step_words;  // of the lines, per step
    int low;         // words from the high to the low parts
    int step_lanes, half_lanes;  // uint4 of the matrix, per step and per half

    Lines(int n, int row_tiles, int threads) : n(n), even(n - n / 2), odd(n / 2), threads(threads) {
        padded = ceil_div(even, STEP) * STEP;
        warps_across = ceil_div(even, WARP_COLUMNS);
        down_bits = 0;
        while ((2 * warps_across) << (down_bits + 1) <= threads / 32) ++down_bits;
        warps_down = 1 << down_bits;
        rows = warps_down * 16 * row_tiles;
        row_bits = down_bits + (row_tiles == 4 ? 6 : 5);
        plane = 4 * rows + 4;
        half = padded / 8 * plane;
        line_pitch = 2 * padded + 8;
        place_pitch = rows + 4;
        words = std::max({4 * half, rows * line_pitch, 2 * padded * place_pitch});
        step_words = 2 * plane;
        low = 2 * half;
        step_lanes = 32 * warps_across * COLUMN_TILES;
        half_lanes = padded / STEP * step_lanes;
    }
    int blocks(int64_t lines) const { return int(ceil_div<int64_t>(lines, rows)); }
    // The line of this thread where neighbouring threads have neighbouring lines.
    __device__ int column_of_thread() const { return threadIdx.x & (rows - 1); }
};

// What this warp multiplies. Recomputed where needed to save registers.
template <int ROW_TILES>
struct Part {
    int half, row, column;  // 0 even, 1 odd; first line in the block, first column in the half
    bool works;
    int g, q;  // lane / 4 and lane % 4, as in fragments

    __device__ explicit Part(const Lines& lines) {
        const int warp = warp_uniform(threadIdx.x / 32), pair = warp / 2;
        half = warp % 2;
        row = (pair & (lines.warps_down - 1)) * 16 * ROW_TILES;
        column = (pair >> lines.down_bits) * WARP_COLUMNS;
        works = column < lines.even;
        g = lane_id() / 4;
        q = lane_id() % 4;
    }
};

// The high and low parts of two numbers.
struct Halves {
    uint32_t high, low;

    __device__ Halves(float a, float b) : high(pack_half2(a, b)) {
        const float2 kept = unpack_half2(high);
        low = pack_half2((a - kept.x) * SPLIT, (b - kept.y) * SPLIT);
    }
};

// Stores `count` lines in shared memory; products of other lines are not used. read(row, i) returns
// the input of the even and the odd half of the transform at place i. Neighbouring lanes read
// neighbouring places. ROW_TILES rows are in flight per thread, the last one several times if there
// are no more.
template <int ROW_TILES, typename Read>
__device__ void split_lines(const Lines& lines, int count, Shared<uint32_t> parts, Read read) {
    const int pairs = lines.padded / 2, bits = pairs >= 32 ? 5 : pairs >= 16 ? 4 : 3;
    const int lanes = 1 << bits, step = lines.threads >> bits;
    for (int pair = threadIdx.x & (lanes - 1); pair < pairs; pair += lanes) {
        const int place = pair / 4 * lines.plane + pair % 4;
        for (int row = threadIdx.x >> bits; row < count; row += ROW_TILES * step) {
            EvenOdd x[ROW_TILES], y[ROW_TILES];
#pragma unroll
            for (int k = 0; k < ROW_TILES; ++k) {
                const int existing = min(row + k * step, count - 1);
                x[k] = read(existing, 2 * pair);
                y[k] = read(existing, 2 * pair + 1);
            }
#pragma unroll
            for (int k = 0; k < ROW_TILES; ++k) {
                const Halves even(x[k].even, y[k].even), odd(x[k].odd, y[k].odd);
                const int word = place + 4 * (row + k * step);
                parts.store(word, even.high);
                parts.store(word + lines.half, odd.high);
                parts.store(word + 2 * lines.half, even.low);
                parts.store(word + 3 * lines.half, odd.low);
            }
        }
    }
}

// The same, with neighbouring lines in neighbouring lanes: a thread reads 8 places of one line.
// Lines past `count` are zeros, so that they add nothing to sums over all lines; read may return
// any number for them.
template <typename Read>
__device__ void split_columns(const Lines& lines, int count, Shared<uint32_t> parts, Read read) {
    const int row = lines.column_of_thread(), step = lines.threads >> lines.row_bits;
    const Shared<uint4> vectors = parts.as<uint4>();
    for (int eight = threadIdx.x >> lines.row_bits; eight < lines.padded / 8; eight += step) {
        EvenOdd of[8];
#pragma unroll
        for (int i = 0; i < 8; ++i) of[i] = read(row, 8 * eight + i);
#pragma unroll
        for (int i = 0; i < 8; ++i) of[i] = row < count ? of[i] : EvenOdd{0, 0};
        uint32_t words[4][4];  // [high and low of even, of odd][2 places]
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            const EvenOdd x = of[2 * i], y = of[2 * i + 1];
            const Halves even(x.even, y.even), odd(x.odd, y.odd);
            words[0][i] = even.high;
            words[1][i] = odd.high;
            words[2][i] = even.low;
            words[3][i] = odd.low;
        }
#pragma unroll
        for (int part = 0; part < 4; ++part) {
            const uint32_t* w = words[part];
            const int word = part * lines.half + eight * lines.plane + 4 * row;
            vectors.store(word / 4, {w[0], w[1], w[2], w[3]});
        }
    }
}

// The block's lines times the warp's columns of matrix [even, odd][step][8 columns][lane]: high
// parts b0 and b1, then their low parts. EXACT: the lines have no low parts.
template <bool EXACT, int ROW_TILES>
__device__ void multiply(
    const Lines& lines, Shared<uint32_t> parts, Global<const uint4> matrix,
    Sums<ROW_TILES>& sums) {
    const Part<ROW_TILES> part(lines);
    if (!part.works) return;
#pragma unroll
    for (int i = 0; i < 16 * ROW_TILES; ++i) sums[i / 16][i / 4 % 4][i % 4] = 0;
    const unsigned lane = lane_id();
    // The lane's row of an ldmatrix: line lane % 16, starting at place 8 * (lane / 16).
    int word = part.half * lines.half + lane / 16 * lines.plane + 4 * (part.row + lane % 16);
    int column = part.half * lines.half_lanes + part.column * 4 + lane;
    for (int left = lines.padded; left > 0; left -= STEP) {
        uint4 b[COLUMN_TILES];
#pragma unroll
        for (int c = 0; c < COLUMN_TILES; ++c) b[c] = matrix.load(column + 32 * c);
#pragma unroll
        for (int t = 0; t < ROW_TILES; ++t) {
            uint32_t high[4], low[4];
            ldmatrix_x4(high, parts, word + 64 * t);
            if constexpr (!EXACT) ldmatrix_x4(low, parts, word + lines.low + 64 * t);
#pragma unroll
            for (int c = 0; c < COLUMN_TILES; ++c) {
                float large[4] = {}, small[4] = {};
                mma_m16n8k16(large, high, b[c].x, b[c].y);
                mma_m16n8k16(small, high, b[c].z, b[c].w);
                if constexpr (!EXACT) mma_m16n8k16(small, low, b[c].x, b[c].y);
#pragma unroll
                for (int j = 0; j < 4; ++j) sums[t][c][j] += fmaf(small[j], 1 / SPLIT, large[j]);
            }
        }
        word += lines.step_words;
        column += lines.step_lanes;
    }
}

// Calls run(row, half, i, sum at place i, sum at place i + 1) for this lane's sums.
template <int ROW_TILES, typename Run>
__device__ void for_each_pair(const Lines& lines, const Sums<ROW_TILES>& sums, Run run) {
    const Part<ROW_TILES> part(lines);
    if (!part.works) return;
#pragma unroll
    for (int t = 0; t < ROW_TILES; ++t) {
#pragma unroll
        for (int c = 0; c < COLUMN_TILES; ++c) {
            const int place = part.column + 8 * c + 2 * part.q;
            if (place >= lines.padded) break;
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                const float* pair = &sums[t][c][2 * j];
                run(part.row + 16 * t + 8 * j + part.g, part.half, place, pair[0], pair[1]);
            }
        }
    }
}

// Stores the sums in shared memory, once no warp reads lines there any more.
template <bool BY_PLACE, int ROW_TILES>
__device__ void stage(const Lines& lines, Shared<uint32_t> parts, const Sums<ROW_TILES>& sums) {
    const Shared<float> staged = parts.as<float>();
    bar_sync(0, lines.threads);
    for_each_pair<ROW_TILES>(lines, sums, [&](int row, int half, int place, float a, float b) {
        const int at = half * lines.padded + place;
        if constexpr (BY_PLACE) {
            staged.store(at * lines.place_pitch + row, a);
            staged.store((at + 1) * lines.place_pitch + row, b);
        } else {
            parts.as<float2>().store((row * lines.line_pitch + at) / 2, {a, b});
        }
    });
    bar_sync(0, lines.threads);
}

}  // namespace espan::dct
