// Converts values in 0..1 to bytes, in one pass.
#pragma once

#include "lanes.h"

namespace espan_cpu {

// Converts a row of pixels; returns false if one of its values is not finite.
template <class Lanes, class Element>
bool row_to_bytes(const Element* in, uint8_t* out, int channels, int width) {
    using Vector = typename Lanes::Vector;
    const Vector zero = Lanes::all(0.0f), white = Lanes::all(255.0f);
    Vector not_finite = zero;  // NaN where a value is not finite
    // Values at a time; those of whole pixels if their alpha is inserted.
    const int step = channels == 3 ? Lanes::kCount : Lanes::kCount / 4 * 3;
    const __m128i spread = _mm_setr_epi8(0, 1, 2, -1, 3, 4, 5, -1, 6, 7, 8, -1, 9, 10, 11, -1);
    const __m128i opaque = _mm_set1_epi32(0xff000000);
    for (int i = 0; i < 3 * width; i += step) {
        const int left = 3 * width - i < step ? 3 * width - i : step;
        const Vector y = Lanes::load(in + i, left);
        not_finite = Lanes::multiply_add(y, zero, not_finite);
        __m128i bytes = Lanes::bytes(Lanes::min(white, Lanes::max(zero, y * white)));
        if (channels == 4) bytes = _mm_or_si128(_mm_shuffle_epi8(bytes, spread), opaque);
        const int count = channels == 3 ? left : left / 3 * 4;
        Lanes::store(out, bytes, count);
        out += count;
    }
    alignas(64) float found[Lanes::kCount];
    Lanes::store(found, not_finite);
    for (float each : found)
        if (each != 0) return false;
    return true;
}

}  // namespace espan_cpu
