// What the two ends of a network share: how their work is cut, and steps through memory.
//
// The features have 32 channels. Weights lie in registers as B of mma m16n8k16: 16 bytes a lane
// are b0, b1 of the first 16 rows of B, then of the next 16.
#pragma once

#include <algorithm>

#include "common/rows.cuh"

namespace espan::ends {

constexpr int PLANES = 4;  // of 8 channels
constexpr int WORDS = 4;   // of 2 channels, in a pixel of a plane

// From one ... of the features to the next, in words of 2 channels.
struct FeatureSteps {
    int64_t picture, plane, row;
    int pixel;

    FeatureSteps(Layout layout, int64_t h, int64_t w)
        : picture(h * w * PLANES * WORDS),
          plane(layout == Layout::planes ? h * w * WORDS : WORDS),
          row(layout == Layout::planes ? w * WORDS : w * PLANES * WORDS),
          pixel(layout == Layout::planes ? WORDS : PLANES * WORDS) {}
};

// From one ... of RGB to the next, in elements.
struct PictureSteps {
    int64_t picture, colour, row;
    int pixel;

    PictureSteps(Layout layout, int64_t h, int64_t w)
        : picture(3 * h * w),
          colour(layout == Layout::contiguous ? h * w : 1),
          row(layout == Layout::contiguous ? w : 3 * w),
          pixel(layout == Layout::contiguous ? 1 : 3) {}
};

// A batch of pictures cut into strips of columns and these into segments of rows.
struct Cut {
    int height, width;
    int segment;  // rows of an item
    unsigned strips, segments;
    int64_t items;
};

struct Item {
    unsigned n, strip;
    int top, rows;
};

// `reach`: rows above a segment that are computed with it and as many below; `walkers`: what
// takes items at the same time.
inline Cut cut(int64_t n, int64_t h, int64_t w, int columns, int reach, int64_t walkers) {
    const int64_t strips = ceil_div(w, int64_t(columns));
    const int64_t segment =
        ceil_div(h, rows::count_segments(n * strips, h, reach, walkers));
    const int64_t segments = ceil_div(h, segment);
    return {int(h), int(w), int(segment), unsigned(strips), unsigned(segments),
            n * strips * segments};
}

// Whether indices of rows, columns and items, past the last ones too, are 32-bit numbers.
inline bool fits(int64_t h, int64_t w, const Cut& cut) {
    return h <= (1 << 30) && w <= (1 << 30) && cut.items <= MAX_BLOCKS / 2;
}

__device__ inline Item item(const Cut& cut, unsigned i) {
    const unsigned down = i / cut.strips, n = down / cut.segments;
    const int top = (down - n * cut.segments) * cut.segment;
    return {n, i - down * cut.strips, top, min(cut.segment, cut.height - top)};
}

inline cudaError_t count_processors(int64_t& processors) {
    int device = 0, count = 0;
    if (const auto error = cudaGetDevice(&device)) return error;
    const auto error = cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
    processors = count;
    return error;
}

}  // namespace espan::ends
