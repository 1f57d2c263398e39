// Divides a batch of images into work items: strips of columns, divided into segments of rows. A
// launch has about one block per multiprocessor, and each block processes several items.
#pragma once

#include <algorithm>

#include "common/ptx.cuh"

namespace espan {

// The number of multiprocessors of the current device.
inline cudaError_t count_processors(int64_t& processors) {
    int device = 0, count = 0;
    if (const auto error = cudaGetDevice(&device)) return error;
    const auto error = cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device);
    processors = count;
    return error;
}

// The number of segments that minimises the rows computed by the busiest of `workers`; each segment
// needs `reach` more rows above and below.
inline int64_t count_segments(int64_t strips, int64_t height, int reach, int64_t workers) {
    int64_t best = 1, least = INT64_MAX;
    for (int64_t count = 1; count <= height && (count - 1) * strips < 2 * workers; ++count) {
        const int64_t rows = ceil_div(height, count) + 2 * reach;
        const int64_t all = ceil_div(strips * count, workers) * rows;
        if (all < least) {
            least = all;
            best = count;
        }
    }
    return best;
}

// A divided batch of images.
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

// Divides n images of h x w into strips of `columns`. `reach`: extra rows computed above and below
// a segment; `workers`: the number of items processed concurrently.
inline Cut cut(int64_t n, int64_t h, int64_t w, int columns, int reach, int64_t workers) {
    const int64_t strips = ceil_div(w, int64_t(columns));
    const int64_t segment = ceil_div(h, count_segments(n * strips, h, reach, workers));
    const int64_t segments = ceil_div(h, segment);
    return {int(h), int(w), int(segment), unsigned(strips), unsigned(segments),
            n * strips * segments};
}

// Whether 32-bit integers can index rows, columns and items, and slightly beyond their ends.
inline bool fits(int64_t h, int64_t w, const Cut& cut) {
    return h <= (1 << 30) && w <= (1 << 30) && cut.items <= MAX_BLOCKS / 2;
}

__device__ inline Item item(const Cut& cut, unsigned i) {
    const unsigned down = i / cut.strips, n = down / cut.segments;
    const int top = (down - n * cut.segments) * cut.segment;
    return {n, i - down * cut.strips, top, min(cut.segment, cut.height - top)};
}

}  // namespace espan
