// Where the tail's channels become pixels: staged in shared memory, written in whole lines.
#pragma once

#include "ends.cuh"

namespace espan::ends {

constexpr int COLUMNS = 64;  // computed of a strip
constexpr int USEFUL = 60;   // stored: for scale 4 a multiple of 16 bytes in every layout
constexpr int EDGE = (COLUMNS - USEFUL) / 2;

// Warps work in pairs, each with half of the 3 * scale^2 channels, in groups of 8.
__host__ __device__ constexpr int out_planes(int scale) { return ceil_div(3 * scale * scale, 16); }

// The enlarged picture, and limits of its values.
struct Picture {
    Global<uint8_t> memory;
    PictureSteps steps;
    float low, high;
    int unit;  // bytes at once: 16, 4, or an element, of which all lines are multiples
};

// Not a number stays one in float16, as torch.clamp has it, and is 0 in uint8.
__device__ inline __half element(float value, const Picture& picture, __half) {
    value = value < picture.low ? picture.low : value;
    __half half;
    from_float(half, value > picture.high ? picture.high : value);
    return half;
}

// To the nearest level, halves to even. The product is rounded first, as the reference has it;
// adding 1.5 * 2^23 leaves the level in the last bits.
__device__ inline uint8_t element(float value, const Picture&, uint8_t) {
    return __float_as_uint(__fmul_rn(__saturatef(value), 255.0f) + 12582912.0f);
}

// A row of a strip as it will lie in memory: SCALE lines of pixels, 3 * SCALE if colours lie apart.
// There are two, one to fill while the other is written.
template <int SCALE, typename Element>
struct Stage {
    static constexpr int SIZE = sizeof(Element), CHANNELS = 3 * SCALE * SCALE;
    static constexpr int OUT_PLANES = out_planes(SCALE);
    // In elements. What is stored of a line begins at a multiple of 16 bytes.
    static constexpr int LEAD = 48 / SIZE;
    __host__ __device__ static constexpr int pitch(int pixel) {
        return ceil_div(LEAD + (COLUMNS - EDGE) * SCALE * pixel, 16) * 16;
    }
    static constexpr int APART = 3 * SCALE * pitch(1), TOGETHER = SCALE * pitch(3);
    static constexpr int ROW = APART > TOGETHER ? APART : TOGETHER;
    static constexpr int VECTORS = 2 * ROW * SIZE / 16;

    const Picture& to;
    Shared<uint4> memory;
    int pixel, lines, line;    // steps of a pixel and a line, and how many lines
    int at[OUT_PLANES][2];     // of this lane's first pixel's channels
    int row = 0;               // 0 or ROW: which of the two is being filled
    int bytes;                 // of a line, in this strip
    int64_t start;             // byte in the picture of the next row of the strip

    // A warp has half `half` of the channels of the columns from `left` on.
    __device__ Stage(const Picture& to, Shared<uint4> memory, int half, int left)
        : to(to), memory(memory), pixel(to.steps.pixel) {
        const bool apart = pixel == 1;
        lines = apart ? 3 * SCALE : SCALE;
        line = apart ? pitch(1) : pitch(3);
        const int column = left + lane_id() / 4 - EDGE;
#pragma unroll
        for (int i = 0; i < 2 * OUT_PLANES; ++i) {
            const int k = channel(half, i / 2, i % 2);
            const int colour = k / (SCALE * SCALE), dy = k / SCALE % SCALE, dx = k % SCALE;
            at[i / 2][i % 2] = LEAD + (apart ? colour * SCALE + dy : dy) * line +
                               (column * SCALE + dx) * pixel + (apart ? 0 : colour);
        }
    }

    __device__ static int channel(int half, int c, int i) {
        return (half * OUT_PLANES + c) * 8 + lane_id() % 4 * 2 + i;
    }

    __device__ void begin(const Item& it, int width) {
        const int column = it.strip * USEFUL;
        bytes = min(USEFUL, width - column) * SCALE * pixel * SIZE;
        start = SIZE * (it.n * to.steps.picture + it.top * SCALE * to.steps.row +
                        int64_t(column) * SCALE * pixel);
    }

    __device__ void put(int half, const float (&sums)[2][OUT_PLANES][4]) {
        const Shared<Element> elements = memory.as<Element>();
#pragma unroll
        for (int i = 0; i < 2 * OUT_PLANES; ++i) {
            if (CHANNELS % 16 && channel(half, i / 2, i % 2) >= CHANNELS) continue;
#pragma unroll
            for (int j = 0; j < 4; ++j) {
                const float sum = sums[j / 2][i / 2][j % 2 * 2 + i % 2];
                elements.store(
                    row + at[i / 2][i % 2] + 8 * j * SCALE * pixel, element(sum, to, Element()));
            }
        }
    }

    // Warp `warp` of 4 writes its share of the row; the other one is filled next.
    __device__ void write(int warp) {
        for (int i = warp; i < lines; i += 4) {
            const int from = (row + LEAD + i * line) * SIZE;
            const int64_t at =
                start + SIZE * (i / SCALE * to.steps.colour + i % SCALE * to.steps.row);
            if (to.unit == 16) {
                copy<uint4>(from, at);
            } else if (to.unit == 4) {
                copy<uint32_t>(from, at);
            } else {
                copy<Element>(from, at);
            }
        }
        start += SIZE * SCALE * to.steps.row;
        row = ROW - row;
    }

    template <typename Unit>
    __device__ void copy(int from, int64_t at) const {
        const Shared<Unit> staged = memory.as<Unit>();
        const Global<Unit> units = to.memory.template as<Unit>();
        for (int i = lane_id(); i < bytes / int(sizeof(Unit)); i += 32) {
            units.store(at / int(sizeof(Unit)) + i, staged.load(from / int(sizeof(Unit)) + i));
        }
    }
};

}  // namespace espan::ends
