// The ways to multiply: AMX tiles, and multiply-adds of vectors.
//
// `Unit::sums` computes one group of pixels: bias plus the sum over taps, (kGroup, 16 * tiles) in
// float32. It calls `between()` for other work: Amx after each product of tiles, Vectors after each
// part of a group.
#pragma once

#include <cstring>

#include "lanes.h"

namespace espan_cpu {

#ifdef __AMX_BF16__
struct Amx {
    using Element = Bfloat16;
    using Lanes = Lanes512Bf16;
    static constexpr int kGroup = 32;

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
    static void sums(
        const Layer<Bfloat16>& layer, int64_t y, int64_t x, float* sums, Between between) {
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
            for (const Tap<Bfloat16>& tap : layer.taps) {
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
#endif

// Sums in kPixels x kVectors registers; each weight is loaded once for kPixels pixels.
template <class Multiply, int pixels_at_a_time, int parts>
struct Vectors {
    using Element = typename Multiply::Element;
    using Lanes = typename Multiply::Lanes;
    static constexpr int kPixels = pixels_at_a_time;
    static constexpr int kGroup = kPixels * parts;

    template <class Between>
    static void sums(
        const Layer<Element>& layer, int64_t y, int64_t x, float* sums, Between between) {
        const int tiles = layer.tiles();
        for (int n = 0; n < tiles; n += kTiles) {
            for (int p = 0; p < kGroup; p += kPixels) {
                float* out = sums + (p * tiles + n) * kTile;
                if (tiles - n >= kTiles)
                    part<kVectors>(layer, n, y, x + p, out);
                else
                    part<kVectors / 2>(layer, n, y, x + p, out);
                between();
            }
        }
    }

  private:
    using Vector = typename Lanes::Vector;
    static constexpr int kVectors = 2;
    static constexpr int kTiles = kVectors * Lanes::kCount / kTile;  // of a part: 2 or 1

    // Where the weights of a vector of channels and of value k of a tap are.
    static constexpr int at(int vector, int k) {
        const int channel = vector * Lanes::kCount;
        const int row = k * kTile + channel % kTile * Multiply::kValues;
        return channel / kTile * kTile * kTap + row;
    }

    template <int count>
    static void part(const Layer<Element>& layer, int n, int64_t y, int64_t x, float* out) {
        const int tiles = layer.tiles();
        // The bias comes last: a large one would round every addition.
        Vector acc[kPixels][count] = {};
        const Element* weights = layer.weights + n * kTile * kTap;
        for (const Tap<Element>& tap : layer.taps) {
            const Element* pixels = tap.pixels + y * tap.row + x * tap.pixel;
            for (int k = 0; k < tap.values; k += Multiply::kValues) {
                Vector w[count];
#pragma GCC unroll 16
                for (int t = 0; t < count; ++t)
                    std::memcpy(&w[t], weights + at(t, k), sizeof(Vector));
#pragma GCC unroll 16
                for (int p = 0; p < kPixels; ++p) {
                    const Vector a = Multiply::broadcast(pixels + p * tap.pixel + k);
#pragma GCC unroll 16
                    for (int t = 0; t < count; ++t)
                        acc[p][t] = Multiply::multiply_add(a, w[t], acc[p][t]);
                }
            }
            weights += tiles * kTile * kTap;
        }
        Vector bias[count];
#pragma GCC unroll 16
        for (int t = 0; t < count; ++t)
            bias[t] = Lanes::load(layer.bias + n * kTile + t * Lanes::kCount);
#pragma GCC unroll 16
        for (int p = 0; p < kPixels; ++p)
#pragma GCC unroll 16
            for (int t = 0; t < count; ++t)
                Lanes::store(out + p * tiles * kTile + t * Lanes::kCount, acc[p][t] + bias[t]);
    }
};

#ifdef __AVX512BF16__
// Two values of a tap at a time: a lane adds both products to its sum.
struct PairsOfBfloat16 {
    using Element = Bfloat16;
    using Lanes = Lanes512Bf16;
    static constexpr int kValues = 2;

    static __m512 broadcast(const Bfloat16* values) {
        int pair;
        std::memcpy(&pair, values, sizeof pair);
        return (__m512)_mm512_set1_epi32(pair);
    }
    static __m512 multiply_add(__m512 a, __m512 w, __m512 sum) {
        return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)w);
    }
};
using Avx512Bf16 = Vectors<PairsOfBfloat16, 12, 2>;  // 24 of 32 registers are sums
#endif

template <class L>
struct SinglesOfFloat32 {
    using Element = float;
    using Lanes = L;
    static constexpr int kValues = 1;

    static typename L::Vector broadcast(const float* value) { return L::all(*value); }
    static typename L::Vector multiply_add(
        typename L::Vector a, typename L::Vector w, typename L::Vector sum) {
        return L::multiply_add(a, w, sum);
    }
};
#ifdef __AVX512F__
using Avx512 = Vectors<SinglesOfFloat32<Lanes512>, 12, 2>;
#else
using Avx2 = Vectors<SinglesOfFloat32<Lanes256>, 6, 5>;  // 12 of 16
#endif

}  // namespace espan_cpu
