// Converts bfloat16 in 0..1 to bytes, in one pass.
#pragma once

#include <immintrin.h>

#include "epilogue.h"

namespace espan_cpu {

// Returns the bytes of 16 values; sets the bits of those that are not finite in `nonfinite`.
inline __m128i to_levels(__m256i halves, __mmask16& nonfinite) {
    const __m512 y = to_float32(halves);
    nonfinite |= not_finite(y);
    const __m512 scaled = _mm512_mul_ps(y, _mm512_set1_ps(255.0f));
    // The conversion to bytes saturates at 255, but interprets negative integers as unsigned.
    const __m512i rounded = _mm512_cvtps_epi32(_mm512_max_ps(scaled, _mm512_setzero_ps()));
    return _mm512_cvtusepi32_epi8(rounded);
}

// Converts a row of pixels; returns false if one of its values is not finite.
inline bool row_to_bytes(const Bfloat16* in, uint8_t* out, int channels, int width) {
    __mmask16 nonfinite = 0;
    const int step = channels == 3 ? 16 : 12;  // values at a time: 16 bytes of `out`
    const __m128i spread =
        _mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1);
    const __m128i opaque = _mm_set1_epi32(0xff000000);
    for (int i = 0; i < 3 * width; i += step) {
        const int left = 3 * width - i < step ? 3 * width - i : step;
        const __m256i halves = _mm256_maskz_loadu_epi16((1 << left) - 1, in + i);
        __m128i bytes = to_levels(halves, nonfinite);
        if (channels == 4) bytes = _mm_or_si128(_mm_shuffle_epi8(bytes, spread), opaque);
        const int count = channels == 3 ? left : left / 3 * 4;
        _mm_mask_storeu_epi8(out, (1 << count) - 1, bytes);
        out += count;
    }
    return !nonfinite;
}

}  // namespace espan_cpu
