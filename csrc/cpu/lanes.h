// Vectors of float32: 16 lanes of AVX-512, 8 of AVX2. Loads and stores convert from and to the
// elements in memory; those with a count touch only that many elements.
#pragma once

#include <immintrin.h>

#include "layers.h"

namespace espan_cpu {

// 1 / (1 + e^-x), as precise as float32. 2^t with t = -x log2(e) is 2^n 2^f, n the integer nearest
// to t: 2^f by the polynomial of degree 6 through its values at Chebyshev's nodes, with a relative
// error of 3e-9.
template <class Lanes>
inline typename Lanes::Vector exact_sigmoid(typename Lanes::Vector x) {
    using Vector = typename Lanes::Vector;
    const Vector log2e = Lanes::all(-1.44269504f);
    // Beyond 150 the result is 0 or 1; infinity would make a NaN of f. A NaN stays.
    x = Lanes::max(Lanes::all(-150.0f), Lanes::min(Lanes::all(150.0f), x));
    const Vector n = Lanes::round(x * log2e);
    const Vector f = Lanes::multiply_add(x, log2e, -n);
    Vector e = Lanes::all(1.5461445e-4f);
    e = Lanes::multiply_add(e, f, Lanes::all(1.3400428e-3f));
    e = Lanes::multiply_add(e, f, Lanes::all(9.6180567e-3f));
    e = Lanes::multiply_add(e, f, Lanes::all(5.5503272e-2f));
    e = Lanes::multiply_add(e, f, Lanes::all(2.4022651e-1f));
    e = Lanes::multiply_add(e, f, Lanes::all(6.9314721e-1f));
    e = Lanes::multiply_add(e, f, Lanes::all(1.0f));
    return Lanes::all(1.0f) / (Lanes::all(1.0f) + Lanes::times_power_of_2(e, n));
}

#ifdef __AVX512F__
struct Lanes512 {
    using Vector = __m512;
    static constexpr int kCount = 16;

    static Vector all(float x) { return _mm512_set1_ps(x); }
    static Vector load(const float* from) { return _mm512_loadu_ps(from); }
    static Vector load(const float* from, int count) {
        return _mm512_maskz_loadu_ps(first(count), from);
    }
    static void store(float* to, Vector y) { _mm512_storeu_ps(to, y); }
    static void store(float* to, Vector y, int count) {
        _mm512_mask_storeu_ps(to, first(count), y);
    }

    // min and max return b if a value is NaN.
    static Vector min(Vector a, Vector b) { return _mm512_min_ps(a, b); }
    static Vector max(Vector a, Vector b) { return _mm512_max_ps(a, b); }
    static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm512_fmadd_ps(a, b, c); }
    static Vector round(Vector x) {
        return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    }
    static Vector times_power_of_2(Vector x, Vector n) { return _mm512_scalef_ps(x, n); }
    static Vector sigmoid(Vector x) { return exact_sigmoid<Lanes512>(x); }

    // Integers in 0..255 as bytes.
    static __m128i bytes(Vector y) { return _mm512_cvtusepi32_epi8(_mm512_cvtps_epi32(y)); }
    static void store(uint8_t* to, __m128i bytes, int count) {
        _mm_mask_storeu_epi8(to, first(count), bytes);
    }

  protected:
    static __mmask16 first(int count) { return count < kCount ? (1 << count) - 1 : 0xffff; }
};
#endif

#ifdef __AVX512BF16__
struct Lanes512Bf16 : Lanes512 {
    using Lanes512::load;
    using Lanes512::store;

    static Vector load(const Bfloat16* from, int count) {
        const __m256i halves = _mm256_maskz_loadu_epi16(first(count), from);
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
    }
    static void store(Bfloat16* to, Vector y, int count) {
        _mm256_mask_storeu_epi16(to, first(count), (__m256i)_mm512_cvtneps_pbh(y));
    }
    // With a relative error of 2e-4; that of rounding to bfloat16 is 4e-3.
    static Vector sigmoid(Vector x) {
        const Vector t = x * all(-1.44269504f);
        // 2^f for f = t - floor(t), by the polynomial of degree 3 with the smallest relative error,
        // 1e-4, of those that are 1 and 2 at the ends.
        const Vector f = _mm512_reduce_ps(t, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
        Vector e = all(0.07826797f);
        e = multiply_add(e, f, all(0.22630768f));
        e = multiply_add(e, f, all(0.69542435f));
        e = multiply_add(e, f, all(1.0f));
        return _mm512_rcp14_ps(_mm512_scalef_ps(e, t) + all(1.0f));  // scalef takes floor(t)
    }
};
#endif

#if defined(__AVX2__) && !defined(__AVX512F__)
struct Lanes256 {
    using Vector = __m256;
    static constexpr int kCount = 8;

    static Vector all(float x) { return _mm256_set1_ps(x); }
    static Vector load(const float* from) { return _mm256_loadu_ps(from); }
    static Vector load(const float* from, int count) {
        return count < kCount ? _mm256_maskload_ps(from, first(count)) : load(from);
    }
    static void store(float* to, Vector y) { _mm256_storeu_ps(to, y); }
    static void store(float* to, Vector y, int count) {
        if (count < kCount)
            _mm256_maskstore_ps(to, first(count), y);
        else
            store(to, y);
    }

    static Vector min(Vector a, Vector b) { return _mm256_min_ps(a, b); }
    static Vector max(Vector a, Vector b) { return _mm256_max_ps(a, b); }
    static Vector multiply_add(Vector a, Vector b, Vector c) { return _mm256_fmadd_ps(a, b, c); }
    static Vector round(Vector x) {
        return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
    }
    static Vector times_power_of_2(Vector x, Vector n) {
        // The exponents of 2^128, which is infinity, and of 2^-127, which is 0, are the last ones.
        const Vector within = max(all(-127.0f), min(all(128.0f), n));
        const __m256i exponent = _mm256_add_epi32(_mm256_cvtps_epi32(within), _mm256_set1_epi32(127));
        return x * _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
    }
    static Vector sigmoid(Vector x) { return exact_sigmoid<Lanes256>(x); }

    static __m128i bytes(Vector y) {
        const __m256i levels = _mm256_cvtps_epi32(y);
        const __m128i high = _mm256_extracti128_si256(levels, 1);
        const __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(levels), high);
        return _mm_packus_epi16(words, words);
    }
    static void store(uint8_t* to, __m128i bytes, int count) {
        if (count == kCount)
            _mm_storel_epi64(reinterpret_cast<__m128i*>(to), bytes);
        else
            for (int i = 0; i < count; ++i) to[i] = reinterpret_cast<const uint8_t*>(&bytes)[i];
    }

  private:
    static __m256i first(int count) {
        const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), lanes);
    }
};
#endif

}  // namespace espan_cpu
