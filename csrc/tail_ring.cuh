// One step of a 3x3 convolution of 32 channels: a row in a ring in shared memory is accumulated
// into the three output rows it reaches, which are open in registers.
//
// A ring is [slot][plane][column][8 channels], as in rows.cuh; a warp takes 32 columns of a row.
#pragma once

#include "common/ends.cuh"

namespace espan::ends {

constexpr int COLUMNS = 64;  // of a strip
constexpr int TILES = 2, WARP_COLUMNS = 16 * TILES;
constexpr int SLOTS = 3;  // rows of a ring, and open rows
constexpr int RING_COLUMNS = COLUMNS + 2;
constexpr int PLANE = RING_COLUMNS * WORDS, SLOT = PLANES * PLANE, RING = SLOTS * SLOT;

// This lane's row of an ldmatrix: pixel lane % 16, plane lane / 16 of the two of 16 channels.
__device__ inline int pixel_word(int left) {
    return lane_id() / 16 * PLANE + (left + lane_id() % 16) * WORDS;
}

// Adds the products of 16 pixels and their neighbours, from `word` of a ring on, to the sums of the
// three rows they reach.
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

// Opens a row with the biases of this lane's channels, from `at` on.
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
