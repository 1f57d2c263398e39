// One step of a 3x3 convolution of 32 channels: accumulates a row in a shared-memory ring into the
// three output rows that it contributes to, whose sums are in registers.
//
// A ring is [slot][plane][column][8 channels], as in rows.cuh; a warp processes 32 columns.
#pragma once

#include "common/ends.cuh"

namespace espan::ends {

constexpr int COLUMNS = 64;  // of a strip
constexpr int TILES = 2, WARP_COLUMNS = 16 * TILES;
constexpr int SLOTS = 3;  // rows of a ring, and output rows in progress
constexpr int RING_COLUMNS = COLUMNS + 2;
constexpr int PLANE = RING_COLUMNS * WORDS, SLOT = PLANES * PLANE, RING = SLOTS * SLOT;

// This lane's row of an ldmatrix: pixel lane % 16 of plane lane / 16, one of two planes.
__device__ inline int pixel_word(int left) {
    return lane_id() / 16 * PLANE + (left + lane_id() % 16) * WORDS;
}

// Adds the products of 16 pixels and their neighbours, starting at `word` of a ring, to the sums of
// the three rows that they contribute to.
template <int OUT_PLANES>
__device__ inline void multiply(
    Shared<uint32_t> rings, int word, const uint4 (&w)[9][OUT_PLANES],
    float (&opened)[OUT_PLANES][4], float (&middle)[OUT_PLANES][4],
    float (&finished)[OUT_PLANES][4]) {
#pragma unroll
    for (int step = 0; step < 6; ++step) {
        const int kx = step / 2, k = step % 2;
        uint32_t a[4];
        ldmatrix_x4(a, rings, word + 2 * k * PLANE + kx * WORDS);
#pragma unroll
        for (int c = 0; c < OUT_PLANES; ++c) {
            const auto tap = [&](int ky, float(&sum)[4]) {
                const uint4& b = w[3 * ky + kx][c];
                mma_m16n8k16(sum, a, k ? b.z : b.x, k ? b.w : b.y);
            };
            tap(0, opened[c]);
            tap(1, middle[c]);
            tap(2, finished[c]);
        }
    }
}

// Initialises a row's sums with the biases of this lane's channels, starting at `at`.
template <int OUT_PLANES>
__device__ inline void open(
    Shared<float2> biases, int at, float (&sums)[TILES][OUT_PLANES][4]) {
#pragma unroll
    for (int c = 0; c < OUT_PLANES; ++c) {
        const float2 bias = biases.load(at + 4 * c);
#pragma unroll
        for (int j = 0; j < 4 * TILES; ++j) sums[j / 4][c][j % 4] = j % 2 ? bias.y : bias.x;
    }
}

}  // namespace espan::ends
