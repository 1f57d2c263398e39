// The two ways to multiply: AMX tiles, and AVX-512 dot products of bfloat16.
//
// `Unit::sums` computes one group of pixels: bias plus the sum over taps, (kGroup, 16 * tiles) in
// float32. It calls `between()` for other work: Amx after each product of tiles, Avx512 after each
// part of a group.
#pragma once

#include <immintrin.h>

#include "layers.h"

namespace espan_cpu {

struct Amx {
    // Tile registers 0 to 3 hold sums of (half of the pixels, tile of channels), 4 and 5 the pixels
    // of a tap, 6 and 7 its weights.
    Amx() {
        // Constant, as compilers do not know that the instruction reads all of it.
        struct alignas(64) Shapes {
            uint8_t palette = 1, start_row = 0, reserved[14] = {};
            uint16_t bytes_of_a_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
            uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
        };
        static constexpr Shapes shapes;
        _tile_loadconfig(&shapes);
    }
    ~Amx() { _tile_release(); }

    template <class Between>
    static void sums(const Layer& layer, int64_t y, int64_t x, float* sums, Between between) {
        const int tiles = layer.tiles();
        const int64_t stride = tiles * kTile * sizeof(float);
        for (int n = 0; n < tiles; n += 2) {
            const bool two = n + 1 < tiles;
            const float* bias = layer.bias + n * kTile;  // a stride of 0 repeats it
            _tile_loadd(0, bias, 0);
            _tile_loadd(2, bias, 0);
            if (two) {
                _tile_loadd(1, bias + kTile, 0);
                _tile_loadd(3, bias + kTile, 0);
            }
            const Bfloat16* weights = layer.weights + n * kTile * kTap;
            for (const Tap& tap : layer.taps) {
                const Bfloat16* pixels = tap.pixels + y * tap.row + x * tap.pixel;
                const int64_t pitch = tap.pixel * sizeof(Bfloat16);
                _tile_loadd(6, weights, 64);
                _tile_loadd(4, pixels, pitch);
                _tile_dpbf16ps(0, 4, 6);
                between();
                _tile_loadd(5, pixels + 16 * tap.pixel, pitch);
                _tile_dpbf16ps(2, 5, 6);
                between();
                if (two) {
                    _tile_loadd(7, weights + kTile * kTap, 64);
                    _tile_dpbf16ps(1, 4, 7);
                    between();
                    _tile_dpbf16ps(3, 5, 7);
                    between();
                }
                weights += tiles * kTile * kTap;
            }
            float* out = sums + n * kTile;
            _tile_stored(0, out, stride);
            _tile_stored(2, out + 16 * tiles * kTile, stride);
            if (two) {
                _tile_stored(1, out + kTile, stride);
                _tile_stored(3, out + kTile + 16 * tiles * kTile, stride);
            }
        }
    }
};

struct Avx512 {
    static constexpr int kPixels = 8;  // times two tiles: 16 registers of sums

    template <class Between>
    static void sums(const Layer& layer, int64_t y, int64_t x, float* sums, Between between) {
        const int tiles = layer.tiles();
        for (int n = 0; n < tiles; n += 2) {
            for (int p = 0; p < kGroup; p += kPixels) {
                float* out = sums + (p * tiles + n) * kTile;
                if (n + 1 < tiles)
                    part<2>(layer, n, y, x + p, out, between);
                else
                    part<1>(layer, n, y, x + p, out, between);
            }
        }
    }

  private:
    template <int count, class Between>
    static void part(
        const Layer& layer, int n, int64_t y, int64_t x, float* out, Between between) {
        const int tiles = layer.tiles();
        __m512 acc[kPixels][count];
#pragma GCC unroll 8
        for (int p = 0; p < kPixels; ++p)
#pragma GCC unroll 2
            for (int t = 0; t < count; ++t)
                acc[p][t] = _mm512_loadu_ps(layer.bias + (n + t) * kTile);
        const Bfloat16* weights = layer.weights + n * kTile * kTap;
        for (const Tap& tap : layer.taps) {
            const Bfloat16* pixels = tap.pixels + y * tap.row + x * tap.pixel;
            for (int k = 0; k < kTap; k += 2) {
                __m512bh w[count];
#pragma GCC unroll 2
                for (int t = 0; t < count; ++t)
                    w[t] = (__m512bh)_mm512_loadu_si512(weights + t * kTile * kTap + k * kTile);
#pragma GCC unroll 8
                for (int p = 0; p < kPixels; ++p) {
                    int pair;
                    __builtin_memcpy(&pair, pixels + p * tap.pixel + k, sizeof pair);
                    const __m512bh a = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 2
                    for (int t = 0; t < count; ++t)
                        acc[p][t] = _mm512_dpbf16_ps(acc[p][t], a, w[t]);
                }
            }
            weights += tiles * kTile * kTap;
        }
        between();
#pragma GCC unroll 8
        for (int p = 0; p < kPixels; ++p)
#pragma GCC unroll 2
            for (int t = 0; t < count; ++t)
                _mm512_store_ps(out + p * tiles * kTile + t * kTile, acc[p][t]);
    }
};

}  // namespace espan_cpu
