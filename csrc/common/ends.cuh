// Steps through memory for the two ends of a network, the head and the tail.
//
// The feature maps have 32 channels. Weights are held in registers as B of mma m16n8k16: the 16
// bytes of a lane are b0, b1 of the first 16 rows of B, then of the next 16.
#pragma once

#include "common/cut.cuh"

namespace espan::ends {

constexpr int PLANES = 4;  // of 8 channels
constexpr int WORDS = 4;   // of 2 channels, in a pixel of a plane

// Steps through feature maps from one image, plane, ... to the next, in words of 2 channels.
struct FeatureSteps {
    int64_t picture, plane, row;
    int pixel;

    FeatureSteps(Layout layout, int64_t h, int64_t w)
        : picture(h * w * PLANES * WORDS),
          plane(layout == Layout::nc8hw8 ? h * w * WORDS : WORDS),
          row(layout == Layout::nc8hw8 ? w * WORDS : w * PLANES * WORDS),
          pixel(layout == Layout::nc8hw8 ? WORDS : PLANES * WORDS) {}
};

// Steps through RGB from one image, colour, ... to the next, in elements.
struct PictureSteps {
    int64_t picture, colour, row;
    int pixel;

    PictureSteps(Layout layout, int64_t h, int64_t w)
        : picture(3 * h * w),
          colour(layout == Layout::contiguous ? h * w : 1),
          row(layout == Layout::contiguous ? w : 3 * w),
          pixel(layout == Layout::contiguous ? 1 : 3) {}
};

}  // namespace espan::ends
