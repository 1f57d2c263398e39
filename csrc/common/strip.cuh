// Sizes of the row-streaming convolutions of rows.cuh: strips, ring buffers and barriers.
#pragma once

#include "common/activations.cuh"

namespace espan::rows {

constexpr int SLOTS = 3;  // rows of a ring, and output rows in progress
constexpr int WORDS = 4;  // per pixel of a plane, 2 channels each

// Divides convolutions, output channels and columns among warps. A warp's weights and sums take
// OUT_PLANES * (9 * PLANES + 12 * TILES) registers per lane: 78 to 120. FP16_ACC: accumulates the
// products of 32 channels and 3 columns in half and these sums in float.
template <int CHANNELS, int CONVS, bool FP16_ACC>
struct Strip {
    static_assert(CHANNELS % 8 == 0 && (CHANNELS <= 32 || CONVS == 1));
    static_assert(CHANNELS > 24 || !FP16_ACC);
    static constexpr int PLANES = CHANNELS / 8;
    // A warp's output planes and tiles of 16 columns. fp16 accumulation takes registers too.
    static constexpr int OUT_PLANES = CHANNELS > 32 || FP16_ACC ? 1 : CHANNELS == 32 ? 2 : 3;
    static constexpr bool IS_TIGHT = FP16_ACC && (CHANNELS == 40 || CHANNELS == 48);
    static constexpr int TILES = OUT_PLANES > 1 ? 4 / OUT_PLANES : IS_TIGHT ? 2 : 4;
    static constexpr int SHARES = PLANES / OUT_PLANES;  // warps per pixel
    static constexpr int WARP_COLUMNS = 16 * TILES;
    // 12 warps have 168 registers per lane, up to 8 warps 255. A single convolution needs the most,
    // because it keeps both load and store addresses.
    static constexpr int WARPS = CONVS == 3       ? 12
                                 : CONVS == 2     ? (FP16_ACC ? 8 : 12)
                                 : CHANNELS <= 32 ? 8
                                 : CHANNELS <= 48 ? 2 * SHARES
                                                  : SHARES;
    static constexpr int THREADS = 32 * WARPS;
    static constexpr int CONV_WARPS = WARPS / CONVS;
    static_assert(CONV_WARPS % SHARES == 0);
    static constexpr int CONV_THREADS = 32 * CONV_WARPS;
    static constexpr int COLUMNS = WARP_COLUMNS * CONV_WARPS / SHARES;  // computed
    static constexpr int USEFUL = COLUMNS - 2 * (CONVS - 1);            // stored
    static constexpr int RING_COLUMNS = COLUMNS + 2;
    static constexpr int PLANE = RING_COLUMNS * WORDS;
    static constexpr int SLOT = PLANES * PLANE;
    static constexpr int RING = SLOTS * SLOT;
};

// Named barriers. Convolution r reads ring r; convolution r - 1 writes it.
constexpr int ALL = 0, LOADED = 1;
__device__ constexpr int full(int ring, int slot) { return 2 + 2 * SLOTS * (ring - 1) + slot; }
__device__ constexpr int empty(int ring, int slot) { return full(ring, slot) + SLOTS; }

// The size of each image of a batch.
struct Images {
    int height, width;
    int64_t area;  // height * width
};

// The parameters of a kernel.
struct Work {
    Global<const uint32_t> x;        // (N, P, H, W, 8) or (N, H, W, P, 8) halves, P planes
    Global<const uint32_t> weights;  // (convolutions, P, 9, P, 32 lanes, 2): layout.fragments
    Global<const float2> biases;     // (convolutions, 8 P)
    Global<const uint32_t> gate;     // like x; read only if the epilogue is `gate`
    Global<uint32_t> out;            // like x
    Images size;
    int segment;  // rows of an item
    unsigned strips, segments;  // items across and down an image
    int items;
    Epilogue epilogue;  // of a single convolution; 2 or 3 convolutions use `gate`
};

// Strides of pixels and planes in words.
template <int PLANES, Layout LAYOUT>
struct Steps {
    static constexpr bool PLANAR = LAYOUT == Layout::nc8hw8;
    static constexpr int PIXEL = PLANAR ? WORDS : PLANES * WORDS;

    __device__ static int64_t plane(const Images& size) {
        return PLANAR ? size.area * WORDS : WORDS;
    }
    // The first word of plane p of image n.
    __device__ static int64_t start(const Images& size, int64_t n, int p) {
        return PLANAR ? (n * PLANES + p) * size.area * WORDS
                      : n * size.area * PIXEL + p * WORDS;
    }
};

// Adds halves, packed in pairs as returned by mma.
__device__ inline void add(float (&sums)[4], const uint32_t (&halves)[2]) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        const float2 pair = unpack_half2(halves[i]);
        sums[2 * i] += pair.x;
        sums[2 * i + 1] += pair.y;
    }
}

}  // namespace espan::rows
