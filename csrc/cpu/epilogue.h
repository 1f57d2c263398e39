// Applies a layer's epilogue to its float32 sums and stores them in bfloat16.
#pragma once

#include <immintrin.h>

#include "layers.h"

namespace espan_cpu {

// 1 / (1 + e^-x) with a relative error of 2e-4; that of rounding to bfloat16 is 4e-3.
inline __m512 sigmoid(__m512 x) {
    const __m512 exponent = _mm512_mul_ps(x, _mm512_set1_ps(-1.44269504f));
    // 2^f for f = exponent - floor(exponent), by the polynomial of degree 3 with the smallest
    // relative error, 1e-4, of those that are 1 and 2 at the ends.
    const __m512 f = _mm512_reduce_ps(exponent, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
    __m512 e = _mm512_set1_ps(0.07826797f);
    e = _mm512_fmadd_ps(e, f, _mm512_set1_ps(0.22630768f));
    e = _mm512_fmadd_ps(e, f, _mm512_set1_ps(0.69542435f));
    e = _mm512_fmadd_ps(e, f, _mm512_set1_ps(1.0f));
    e = _mm512_scalef_ps(e, exponent);  // e * 2^floor(exponent)
    return _mm512_rcp14_ps(_mm512_add_ps(e, _mm512_set1_ps(1.0f)));
}

inline __m512 to_float32(__m256i halves) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

// The mask of values that are NaN or infinite.
inline __mmask16 not_finite(__m512 x) {
    return _mm512_fpclass_ps_mask(x, 0x01 | 0x08 | 0x10 | 0x80);
}

// Applies the epilogue to a group of pixels with sums (kGroup, 16 * tiles). `advance` processes a
// few pixels, so that this work overlaps with the products of the next group.
class Finisher {
  public:
    explicit Finisher(const Layer& layer) : layer_(layer), tiles_(layer.tiles()) {}

    void begin(const float* sums, int y, int x) {
        sums_ = sums, y_ = y, x_ = x, done_ = 0;
        count_ = layer_.width - x < kGroup ? layer_.width - x : kGroup;
    }

    void advance(int pixels) {
        const int end = done_ + pixels < count_ ? done_ + pixels : count_;
        switch (layer_.epilogue) {
            case Epilogue::shuffle:
                for (; done_ < end; ++done_) shuffle(done_);
                break;
            case Epilogue::gate:
                for (; done_ < end; ++done_) store<Epilogue::gate>(done_);
                break;
            case Epilogue::silu:
                for (; done_ < end; ++done_) store<Epilogue::silu>(done_);
                break;
            case Epilogue::none:
                for (; done_ < end; ++done_) store<Epilogue::none>(done_);
        }
    }

  private:
    template <Epilogue kind>
    void store(int pixel) {
        const float* sums = sums_ + pixel * tiles_ * kTile;
        const int64_t x = x_ + pixel;
        Bfloat16* out = layer_.out + y_ * layer_.row + x * layer_.pixel;
        const Bfloat16* gate = layer_.gate.pixels + y_ * layer_.gate.row + x * layer_.gate.pixel;
        for (int n = 0; n < tiles_; ++n) {
            const int left = layer_.channels - n * kTile;
            const __mmask16 valid = left < kTile ? (1 << left) - 1 : 0xffff;
            __m512 y = _mm512_load_ps(sums + n * kTile);
            if constexpr (kind == Epilogue::silu) y = _mm512_mul_ps(y, sigmoid(y));
            if constexpr (kind == Epilogue::gate) {
                const __m512 x = to_float32(_mm256_maskz_loadu_epi16(valid, gate + n * kTile));
                const __m512 half = _mm512_set1_ps(0.5f);
                y = _mm512_mul_ps(_mm512_add_ps(y, x), _mm512_sub_ps(sigmoid(y), half));
            }
            const __m256i halves = (__m256i)_mm512_cvtneps_pbh(y);
            _mm256_mask_storeu_epi16(out + n * kTile, valid, halves);
        }
    }

    void shuffle(int pixel) {
        const int s = layer_.scale;
        const __mmask16 valid = (1 << 3 * s) - 1;
        for (int r = 0; r < s; ++r) {
            const float* sums = sums_ + pixel * tiles_ * kTile + r * 3 * s;
            const int64_t at = (y_ * int64_t{s} + r) * layer_.row + (x_ + pixel) * s * layer_.pixel;
            const __m512 y = _mm512_maskz_loadu_ps(valid, sums);
            _mm256_mask_storeu_epi16(layer_.out + at, valid, (__m256i)_mm512_cvtneps_pbh(y));
        }
    }

    const Layer& layer_;
    const int tiles_;
    const float* sums_ = nullptr;
    int y_ = 0, x_ = 0, done_ = 0, count_ = 0;
};

}  // namespace espan_cpu
