// From bfloat16 in 0..1 to bytes, in one pass.
#pragma once

#include <immintrin.h>

#include "epilogue.h"

namespace espan_cpu {

// Bytes of 16 numbers; `broken` collects those that are not finite.
inline __m128i levels(__m256i halves, __mmask16& broken) {
    const __m512 y = widened(halves);
    broken |= not_finite(y);
    const __m512 scaled = _mm512_mul_ps(y, _mm512_set1_ps(255.0f));
    // The conversion to bytes saturates above; below it takes the number as unsigned.
    const __m512i whole = _mm512_cvtps_epi32(_mm512_max_ps(scaled, _mm512_setzero_ps()));
    return _mm512_cvtusepi32_epi8(whole);
}

// A row of pixels; false if a number of it is not finite.
inline bool row_to_bytes(const Half* in, uint8_t* out, int channels, int width) {
    __mmask16 broken = 0;
    const int step = channels == 3 ? 16 : 12;  // numbers at a time: 16 bytes of `out`
    const __m128i spread =
        _mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1);
    const __m128i opaque = _mm_set1_epi32(0xff000000);
    for (int i = 0; i < 3 * width; i += step) {
        const int left = 3 * width - i < step ? 3 * width - i : step;
        const __m256i halves = _mm256_maskz_loadu_epi16((1 << left) - 1, in + i);
        __m128i bytes = levels(halves, broken);
        if (channels == 4) bytes = _mm_or_si128(_mm_shuffle_epi8(bytes, spread), opaque);
        const int count = channels == 3 ? left : left / 3 * 4;
        _mm_mask_storeu_epi8(out, (1 << count) - 1, bytes);
        out += count;
    }
    return !broken;
}

}  // namespace espan_cpu
