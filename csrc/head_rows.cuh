// Rows of an RGB image as A of a matrix product, for the 9x9 convolution of the head.
//
// In a dense RGB row, the 9 pixels of 3 colours covered by a kernel row are 27 consecutive halves.
// Padded to 32 with zero weights, they are the columns of a matrix product whose rows are pixels.
// A vertical convolution of 9 taps remains.
//
// A pixel can start at an odd half, but a register holds an aligned pair: pixels of odd columns are
// read from a copy of the row shifted by one half. A warp computes 16 pixels of a row and loads its
// own input rows, so warps do not wait for each other.
#pragma once

#include "common/ends.cuh"

namespace espan::head {

using namespace ends;

constexpr int COLUMNS = 16, REACH = 4, TAPS = 2 * REACH + 1;
constexpr int SLOTS = 3;  // rows of a warp's ring
// Words of a row, and the offset of its shifted copy, in the other half of the banks.
constexpr int SLOT = 96, COPY = 48, RING = SLOTS * SLOT;

__device__ inline __half to_half(__half value) { return value; }
__device__ inline __half to_half(uint8_t value) {
    __half half;
    from_float(half, value);
    return half;
}

// A warp's reader of an item's rows. AHEAD: rows prefetched into registers.
template <typename Pixel, int AHEAD>
struct ImageRows {
    static_assert(TAPS % SLOTS == 0 && TAPS % AHEAD == 0);
    Global<const Pixel> x;
    const ImageSteps& steps;
    Shared<__half> memory;  // rings of all warps
    int ring;               // the first word of the warp's ring
    int height, top;
    bool has_column;
    int64_t at;  // the lane's pixel in the next row to load
    Pixel next[AHEAD][3];

    // A lane loads the pixel of column left - REACH + lane; 0 outside the halo of 16 pixels.
    __device__ void begin(const Cut& cut, const Item& it, int left) {
        const int column = left - REACH + lane_id();
        top = it.top - REACH;
        height = cut.height;
        has_column = lane_id() < COLUMNS + 2 * REACH && unsigned(column) < unsigned(cut.width);
        at = it.n * steps.image + top * steps.row + int64_t(column) * steps.pixel;
#pragma unroll
        for (int row = 0; row < AHEAD; ++row) load(row, row);
        // The last rows of the previous item have been read.
        warp_sync();
        store(0, 0);
    }

    // Loads row `row` into next[place].
    __device__ void load(int row, int place) {
        const bool inside = has_column && unsigned(top + row) < unsigned(height);
#pragma unroll
        for (int c = 0; c < 3; ++c) {
            next[place][c] = inside ? x.load(at + c * steps.colour) : Pixel{};
        }
        at += steps.row;
    }

    __device__ void store(int slot, int place) const {
#pragma unroll
        for (int c = 0; c < 3; ++c) {
            const int half = 2 * (ring + slot * SLOT) + 3 * lane_id() + c;
            const __half value = to_half(next[place][c]);
            memory.store(half, value);
            memory.store(half + 2 * COPY - 1, value);
        }
    }

    // Makes row `row`, which is `phase` modulo TAPS, ready to be read, and loads a later one.
    __device__ void step(int row, int phase) {
        store((phase + 1) % SLOTS, (phase + 1) % AHEAD);
        load(row + AHEAD, phase % AHEAD);
        warp_sync();
    }

    // The 16 pixels of the row at `slot`: columns 16 k to 16 k + 15 of A.
    __device__ void fragment(uint32_t (&a)[4], int slot, int k) const {
        const Shared<uint32_t> words = memory.template as<uint32_t>();
        // The lane's first pair of pixel g; 8 pixels further are 12 words further, 8 columns
        // further 4 words.
        const int g = lane_id() / 4, q = lane_id() % 4;
        const int word =
            ring + (3 * g - g % 2) / 2 + g % 2 * COPY + q + slot * SLOT + 8 * k;
        a[0] = words.load(word);
        a[1] = words.load(word + 12);
        a[2] = words.load(word + 4);
        a[3] = words.load(word + 16);
        if (k == 0) return;
        // Columns from 27 on are padding.
        const uint32_t kept = q == 0 ? 0xffffffff : q == 1 ? 0xffff : 0;
        a[2] &= kept;
        a[3] &= kept;
    }
};

}  // namespace espan::head
