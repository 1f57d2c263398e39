// The tail's output: pixel shuffle in shared memory, then writes of full lines.
#pragma once

#include "tail_ring.cuh"

namespace espan::ends {

// Stored columns of a strip: for scale 4 a multiple of 16 bytes in every layout.
constexpr int USEFUL = 60;
constexpr int EDGE = (COLUMNS - USEFUL) / 2;

// Warps work in pairs, each on half of the 3 * scale^2 channels, in groups of 8.
__host__ __device__ constexpr int out_planes(int scale) { return ceil_div(3 * scale * scale, 16); }

// The upscaled image, and the limits of its values.
struct OutputImage {
    Global<uint8_t> memory;
    ImageSteps steps;
    int size;  // bytes of an element: 1, uint8, or 2, float16
    int unit;  // bytes per write: 16, 4, or one element; divides the size of every line
    float low, high;

    // n images of h x w at `out`, uint8 or float16; h and w include the upscaling by `scale`.
    OutputImage(void* out, bool uint8, Layout layout, int64_t n, int64_t h, int64_t w, int scale,
            bool clamp)
        : memory(static_cast<uint8_t*>(out), 3 * n * h * w * (uint8 ? 1 : 2)),
          steps(layout, h, w),
          size(uint8 ? 1 : 2),
          low(clamp ? 0 : -INFINITY),
          high(clamp ? 1 : INFINITY) {
        const int64_t strip = int64_t(USEFUL) * scale * steps.pixel * size, line = steps.row * size;
        const auto divisible = [&](int bytes) { return strip % bytes == 0 && line % bytes == 0; };
        unit = divisible(16) ? 16 : divisible(4) ? 4 : size;
    }
};

// Keeps NaN in float16, as torch.clamp does; uint8 turns NaN into 0.
__device__ inline void finish(__half& to, float value, const OutputImage& image) {
    value = value < image.low ? image.low : value;
    from_float(to, value > image.high ? image.high : value);
}

// The nearest level in the last byte, ties to even. The product is rounded first, as in the
// reference; adding 1.5 * 2^23 leaves the level in the last bits.
__device__ inline uint32_t level(float value) {
    return __float_as_uint(__fmul_rn(__saturatef(value), 255.0f) + 12582912.0f);
}

__device__ inline void finish(uint8_t& to, float value, const OutputImage&) { to = level(value); }

// A row of a strip in memory order: SCALE lines of pixels, or 3 * SCALE for channels-first output.
// A warp computes GROUPS groups of 8 channels of 16 * TILES columns. The caller makes sure that all
// warps have written the stage out before it is refilled.
template <int SCALE, int GROUPS, int TILES>
struct Stage {
    static constexpr int CHANNELS = 3 * SCALE * SCALE;
    // In bytes. The stored part of a line starts at a multiple of 16.
    static constexpr int LEAD = 48;
    __host__ __device__ static constexpr int pitch(int pixel) {
        return ceil_div(LEAD + (COLUMNS - EDGE) * SCALE * pixel, 16) * 16;
    }
    static constexpr int PLANAR = 3 * SCALE * pitch(2), INTERLEAVED = SCALE * pitch(6);
    static constexpr int VECTORS = (PLANAR > INTERLEAVED ? PLANAR : INTERLEAVED) / 16;

    const OutputImage& to;
    Shared<uint4> memory;
    int pixel, lines, line;  // bytes per pixel, number of lines, bytes per line
    int at[GROUPS][2];       // element index of the channels of this lane's first pixel
    int buffer = 0;          // byte offset of the current buffer
    int bytes;               // of a line in this strip
    int64_t start;           // byte offset in the image of the strip's next row

    // The warp has share `share` of the channels; its columns start at `left`.
    __device__ Stage(const OutputImage& to, Shared<uint4> memory, int share, int left)
        : to(to), memory(memory), pixel(to.steps.pixel * to.size) {
        const bool planar = to.steps.pixel == 1;
        lines = planar ? 3 * SCALE : SCALE;
        line = pitch(pixel);
        const int column = left + lane_id() / 4 - EDGE;
#pragma unroll
        for (int i = 0; i < 2 * GROUPS; ++i) {
            const int k = channel(share, i / 2, i % 2);
            const int colour = k / (SCALE * SCALE), dy = k / SCALE % SCALE, dx = k % SCALE;
            at[i / 2][i % 2] = (LEAD + (planar ? colour * SCALE + dy : dy) * line) / to.size +
                               (column * SCALE + dx) * to.steps.pixel + (planar ? 0 : colour);
        }
    }

    __device__ static int channel(int share, int c, int i) {
        return (share * GROUPS + c) * 8 + lane_id() % 4 * 2 + i;
    }

    // Switches to the other buffer of a double buffer.
    __device__ void swap() { buffer = VECTORS * 16 - buffer; }

    __device__ void begin(const Item& it, int width) {
        const int column = it.strip * USEFUL;
        bytes = min(USEFUL, width - column) * SCALE * pixel;
        start = (it.n * to.steps.image + it.top * (SCALE * to.steps.row)) * to.size +
                int64_t(column) * SCALE * pixel;
    }

    __device__ void put(int share, const float (&sums)[TILES][GROUPS][4]) {
        if (SCALE == 4 && 8 * GROUPS == CHANNELS && to.size == 1 && to.steps.pixel == 3) {
            put_pixels(sums);
        } else if (to.size == 1) {
            put_in(memory.as<uint8_t>(), share, sums);
        } else {
            put_in(memory.as<__half>(), share, sums);
        }
    }

    template <typename Element>
    __device__ void put_in(
        Shared<Element> elements, int share, const float (&sums)[TILES][GROUPS][4]) {
        const int first = buffer / int(sizeof(Element));
#pragma unroll
        for (int i = 0; i < 2 * GROUPS; ++i) {
            if (CHANNELS % 16 && channel(share, i / 2, i % 2) >= CHANNELS) continue;
#pragma unroll
            for (int j = 0; j < 2 * TILES; ++j) {
                Element element;
                finish(element, sums[j / 2][i / 2][j % 2 * 2 + i % 2], to);
                elements.store(first + at[i / 2][i % 2] + 8 * j * SCALE * to.steps.pixel, element);
            }
        }
    }

    // Interleaved uint8 of scale 4, if the warp has all channels: then a lane has two neighbouring
    // pixels, 6 bytes, in each pair of lines.
    __device__ void put_pixels(const float (&sums)[TILES][GROUPS][4]) {
        const Shared<uint16_t> pairs = memory.as<uint16_t>();
#pragma unroll
        for (int i = 0; i < 4 * TILES; ++i) {
            const int lines = i / 2 % 2, side = i % 2;
            uint32_t colours[3][2];
#pragma unroll
            for (int j = 0; j < 6; ++j) {
                colours[j / 2][j % 2] =
                    level(sums[i / 4][(2 * (j / 2) + lines) % GROUPS][2 * side + j % 2]);
            }
            const auto& [r, g, b] = colours;
            const int at16 = (buffer + at[lines][0]) / 2 + (2 * (i / 4) + side) * 8 * SCALE * 3 / 2;
            pairs.store(at16, (r[0] & 0xff) | g[0] << 8);
            pairs.store(at16 + 1, (b[0] & 0xff) | r[1] << 8);
            pairs.store(at16 + 2, (g[1] & 0xff) | b[1] << 8);
        }
    }

    // Writes warp `warp`'s share (one of 4) of the row.
    __device__ void write(int warp) {
#pragma unroll 1
        for (int i = warp; i < lines; i += 4) {
            const int from = buffer + LEAD + i * line;
            const int64_t at =
                start + (i / SCALE * to.steps.colour + i % SCALE * to.steps.row) * to.size;
            if (to.unit == 16) {
                copy<uint4>(from, at);
            } else if (to.unit == 4) {
                copy<uint32_t>(from, at);
            } else if (to.unit == 2) {
                copy<__half>(from, at);
            } else {
                copy<uint8_t>(from, at);
            }
        }
        start += SCALE * to.steps.row * to.size;
    }

    template <typename Unit>
    __device__ void copy(int from, int64_t at) const {
        constexpr int SIZE = sizeof(Unit);
        const Shared<Unit> staged = memory.as<Unit>();
        const Global<Unit> units = to.memory.template as<Unit>();
        const int count = bytes / SIZE;
#pragma unroll 1
        for (int i = lane_id(); i < count; i += 64) {
            const bool has_next = i + 32 < count;
            const Unit unit = staged.load(from / SIZE + i);
            const Unit next = has_next ? staged.load(from / SIZE + i + 32) : Unit{};
            units.store(at / SIZE + i, unit);
            if (has_next) units.store(at / SIZE + i + 32, next);
        }
    }
};

}  // namespace espan::ends
