// Memory strides for the two ends of a network, the head and the tail.
//
// The feature maps have 32 channels. Registers hold the weights as B of mma m16n8k16: a lane's 16
// bytes are b0, b1 of the first 16 rows of B, then of the next 16.
#pragma once

#include "common/cut.cuh"

namespace espan::ends {

constexpr int PLANES = 4;  // of 8 channels
constexpr int WORDS = 4;   // per pixel of a plane, 2 channels each

// Strides of feature maps, in words of 2 channels.
struct FeatureSteps {
    int64_t image, plane, row;
    int pixel;

    FeatureSteps(Layout layout, int64_t h, int64_t w)
        : image(h * w * PLANES * WORDS),
          plane(layout == Layout::nc8hw8 ? h * w * WORDS : WORDS),
          row(layout == Layout::nc8hw8 ? w * WORDS : w * PLANES * WORDS),
          pixel(layout == Layout::nc8hw8 ? WORDS : PLANES * WORDS) {}
};

// Strides of RGB images, in elements.
struct ImageSteps {
    int64_t image, colour, row;
    int pixel;

    ImageSteps(Layout layout, int64_t h, int64_t w)
        : image(3 * h * w),
          colour(layout == Layout::contiguous ? h * w : 1),
          row(layout == Layout::contiguous ? w : 3 * w),
          pixel(layout == Layout::contiguous ? 1 : 3) {}
};

}  // namespace espan::ends
