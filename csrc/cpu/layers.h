// Layers of a convolutional network on a CPU, in bfloat16 or float32, with float32 sums.
//
// A layer is a sum over taps: up to 32 values at each pixel times a matrix (32, channels). The three
// pixels of a row that a 3x3 convolution of 32 channels reads are three taps; 1x1 convolutions of
// other inputs are further taps of the same layer. Taps differ only in their address, so images have
// borders of zeros in memory.
#pragma once

#include <cstdint>
#include <vector>

namespace espan_cpu {

using Bfloat16 = uint16_t;
constexpr int kTap = 32;    // values of a tap, at most: in bfloat16 a row of an AMX tile
constexpr int kTile = 16;   // channels of a matrix that lie together
constexpr int kGroup = 32;  // pixels of a row that a unit computes together, at most
constexpr int kMaxTiles = 4;

template <class Element>
struct Tap {
    const Element* pixels;  // the values at the layer's first pixel; read for full groups of pixels
    int64_t row;            // elements from one row to the next
    int64_t pixel;          // elements from one pixel to the next
    int values;             // AMX reads all 32, with weights of 0 for the rest
};

enum class Epilogue {
    none,     // y
    silu,     // y * sigmoid(y)
    gate,     // (y + gate) * (sigmoid(y) - 0.5)
    shuffle,  // y of channels (row, column, colour) as scale x scale pixels
};

template <class Element>
struct Layer {
    std::vector<Tap<Element>> taps;
    // bfloat16 (taps, tiles, 16, 16, 2): tap[2 k + i] and channel n at [k][n][i];
    // float32 (taps, tiles, 32, 16).
    const Element* weights;
    const float* bias;   // (16 * tiles,)
    int channels;
    Epilogue epilogue;
    Tap<Element> gate;   // `channels` values at each pixel, for Epilogue::gate
    Element* out;        // the first pixel of the result; of 3 colours after a shuffle
    int64_t row, pixel;  // elements of `out` from one row and pixel to the next
    int height, width;   // pixels before a shuffle
    int reach;           // rows above and below a pixel that its taps read
    int scale;           // of a shuffle

    int tiles() const { return (channels + kTile - 1) / kTile; }
};

template <class Element>
using Layers = std::vector<Layer<Element>>;

// The instructions that multiply: AMX tiles and AVX-512 dot products of bfloat16; AVX-512 and AVX2
// multiply-adds of float32.
enum class Unit { amx, avx512_bf16, avx512, avx2 };

// Whether the processor and the operating system support the unit.
bool has(Unit unit);

// Each runs the layers, all of one height, as if in sequence, on `threads` threads. A layer may
// write to a map that an earlier layer reads.
void run_amx(const Layers<Bfloat16>& layers, int threads);
void run_avx512_bf16(const Layers<Bfloat16>& layers, int threads);
void run_avx512(const Layers<float>& layers, int threads);
void run_avx2(const Layers<float>& layers, int threads);

// Images (height, width, 3) in 0..1 as bytes: round(255 y), halves to even, clamped to 0..255.
template <class Element>
struct Pixels {
    const Element* in;
    int64_t in_row;  // elements from one row to the next; the values of a row are contiguous
    uint8_t* out;
    int64_t out_row;
    int channels;    // of a pixel in `out`: 3, or 4 with 255 as the last
    int height, width;
};

// False if a value is not finite; `out` is then undefined.
bool to_bytes_avx512_bf16(const Pixels<Bfloat16>& pixels, int threads);
bool to_bytes_avx512(const Pixels<float>& pixels, int threads);
bool to_bytes_avx2(const Pixels<float>& pixels, int threads);

}  // namespace espan_cpu
