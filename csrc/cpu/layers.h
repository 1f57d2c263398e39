// Layers of a convolutional network on a CPU, in bfloat16 with float32 sums.
//
// A layer is a sum over taps: 32 values at each pixel times a matrix (32, channels). A 3x3
// convolution of 32 channels has nine taps; 1x1 convolutions of other inputs are further taps of
// the same layer. Taps differ only in their address, so images have borders of zeros in memory.
#pragma once

#include <cstdint>
#include <vector>

namespace espan_cpu {

using Bfloat16 = uint16_t;
constexpr int kTap = 32;    // values of a tap: 64 bytes, a row of an AMX tile
constexpr int kTile = 16;   // channels of a matrix that are multiplied together
constexpr int kGroup = 32;  // pixels of a row that are computed together
constexpr int kMaxTiles = 4;

struct Tap {
    const Bfloat16* pixels;  // 32 values at the layer's first pixel; read for full groups of pixels
    int64_t row;             // elements from one row to the next
    int64_t pixel;           // elements from one pixel to the next
};

enum class Epilogue {
    none,     // y
    silu,     // y * sigmoid(y)
    gate,     // (y + gate) * (sigmoid(y) - 0.5)
    shuffle,  // y of channels (row, column, colour) as scale x scale pixels
};

struct Layer {
    std::vector<Tap> taps;
    const Bfloat16* weights;  // (taps, tiles, 16, 16, 2): tap[2 k + i] and channel n at [k][n][i]
    const float* bias;        // (16 * tiles,)
    int channels;
    Epilogue epilogue;
    Tap gate;                 // `channels` values at each pixel, for Epilogue::gate
    Bfloat16* out;            // the first pixel of the result; of 3 colours after a shuffle
    int64_t row, pixel;       // elements of `out` from one row and pixel to the next
    int height, width;        // pixels before a shuffle
    int reach;                // rows above and below a pixel that its taps read
    int scale;                // of a shuffle

    int tiles() const { return (channels + kTile - 1) / kTile; }
};

// The instructions that multiply bfloat16.
enum class Unit { amx, avx512 };

// Whether the processor and the operating system support the unit.
bool has(Unit unit);

// Runs the layers, all of one height, as if in sequence, on `threads` threads. A layer may write to
// a map that an earlier layer reads.
void run(const std::vector<Layer>& layers, Unit unit, int threads);

// Images (height, width, 3) in 0..1 as bytes: round(255 y), halves to even, clamped to 0..255.
struct Pixels {
    const Bfloat16* in;
    int64_t in_row;  // elements from one row to the next; the values of a row are contiguous
    uint8_t* out;
    int64_t out_row;
    int channels;    // of a pixel in `out`: 3, or 4 with 255 as the last
    int height, width;
};

// False if a value is not finite; `out` is then undefined.
bool to_bytes(const Pixels& pixels, int threads);

}  // namespace espan_cpu
