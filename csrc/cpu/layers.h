// Layers of a convolutional network on a CPU, in bfloat16 with float32 sums.
//
// A layer is a sum over taps: 32 numbers at each pixel times a matrix (32, channels). A 3x3
// convolution of 32 channels has nine taps; 1x1 convolutions of other inputs are further taps of the
// same layer. Only the address tells taps apart, so images have borders of zeros in memory.
#pragma once

#include <cstdint>
#include <vector>

namespace espan_cpu {

using Half = uint16_t;      // a bfloat16
constexpr int kTap = 32;    // numbers of a tap: 64 bytes, a row of an AMX tile
constexpr int kTile = 16;   // channels of a matrix that are multiplied together
constexpr int kGroup = 32;  // pixels of a row that are computed together
constexpr int kMaxTiles = 4;

struct Tap {
    const Half* pixels;  // 32 numbers at the layer's first pixel; read for a whole group of pixels
    int64_t row;         // elements from a row to the next
    int64_t pixel;       // elements from a pixel to the next
};

enum class Epilogue {
    none,     // y
    silu,     // y * sigmoid(y)
    gate,     // (y + gate) * (sigmoid(y) - 0.5)
    shuffle,  // y of channels (row, column, colour) as scale x scale pixels
};

struct Layer {
    std::vector<Tap> taps;
    const Half* weights;  // (taps, tiles, 16, 16, 2): tap[2 k + i] and channel n at [k][n][i]
    const float* bias;    // (16 * tiles,)
    int channels;
    Epilogue epilogue;
    Tap gate;             // channels numbers at each pixel, for Epilogue::gate
    Half* out;            // the first pixel of the result; of 3 colours after a shuffle
    int64_t row, pixel;   // elements of `out` from a row, a pixel to the next
    int height, width;    // pixels before a shuffle
    int scale;            // of a shuffle

    int tiles() const { return (channels + kTile - 1) / kTile; }
};

enum class Unit { amx, avx512 };

// Whether processor and operating system have it.
bool has(Unit unit);

// Runs the layers in sequence, each on `threads` threads.
void run(const std::vector<Layer>& layers, Unit unit, int threads);

// Images (height, width, 3) in 0..1 as bytes: round(255 y), halves to even, clamped to 0..255.
struct Pixels {
    const Half* in;
    int64_t in_row;  // elements from a row to the next; the numbers of a row lie together
    uint8_t* out;
    int64_t out_row;
    int channels;    // of a pixel in `out`: 3, or 4 with 255 as the last
    int height, width;
};

// False if a number is not finite; `out` is then undefined.
bool to_bytes(const Pixels& pixels, int threads);

}  // namespace espan_cpu
