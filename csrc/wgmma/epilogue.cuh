// Applies the epilogue to a finished row and stores it in a ring.
#pragma once

#include "common/activations.cuh"
#include "wgmma/convolve.cuh"

namespace espan::wgmma_rows {

// A lane's values of a row of halves: for each plane the pairs of channels 2 q and 2 q + 1 of
// pixels g and g + 8. In shared memory planes are PITCH bytes apart; `at`: the row's address plus
// the lane's matrix_row(PITCH).
template <int PLANES>
using Pairs = uint32_t[PLANES][2];

template <int PITCH, int PLANES>
__device__ inline void load_pairs(Pairs<PLANES>& pairs, Address at) {
#pragma unroll
    for (int plane = 0; plane + 1 < PLANES; plane += 2) {
        uint32_t words[4];
        load_matrices(words, at + plane * PITCH);
#pragma unroll
        for (int i = 0; i < 4; ++i) pairs[plane + i / 2][i % 2] = words[i];
    }
    if (PLANES % 2) load_matrices(pairs[PLANES - 1], at + (PLANES - 1) * PITCH);
}

template <int PITCH, int PLANES>
__device__ inline void store_pairs(Address at, const Pairs<PLANES>& pairs) {
#pragma unroll
    for (int plane = 0; plane + 1 < PLANES; plane += 2) {
        const auto &one = pairs[plane], &next = pairs[plane + 1];
        store_matrices(at + plane * PITCH, {one[0], one[1], next[0], next[1]});
    }
    if (PLANES % 2) store_matrices(at + (PLANES - 1) * PITCH, pairs[PLANES - 1]);
}

// Where the rows of a convolution go: into the ring of the next one, 0 outside the image.
template <Epilogue EPILOGUE, class Out>
struct HiddenRows {
    Writer<Out> out;
    const int place = matrix_row(PLANE) + PIXEL;

    __device__ void begin(const Item&) {}
    __device__ void prepare() {}
    template <int SUMS>
    __device__ void store(const float (&sum)[SUMS], const Finished& row) {
        Pairs<SUMS / 4> pairs;
#pragma unroll
        for (int i = 0; i < SUMS / 2; ++i) {
            const uint32_t pair = finish<EPILOGUE>(0, sum[2 * i], sum[2 * i + 1]);
            pairs[i / 2][i % 2] = row.inside[i % 2] ? pair : 0;
        }
        out.wait();
        store_pairs<PLANE>(out.data() + place, pairs);
    }
    __device__ void publish() { out.publish(); }
};

// Or, as the rows of the last convolution, into the ring of output; with rows of the gate.
template <Epilogue EPILOGUE, class Out, class Gate, int PLANES>
struct OutputRows {
    Writer<Out> out;
    Reader<Gate> gate;
    const int place = matrix_row(NARROW_PLANE);
    Pairs<PLANES> pairs = {};

    __device__ void begin(const Item&) {}
    // Before the special functions, whose queue loads from shared memory would have to wait in.
    __device__ void prepare() {
        if constexpr (EPILOGUE == Epilogue::gate) {
            gate.wait();
            load_pairs<NARROW_PLANE>(pairs, gate.data() + place);
            gate.free();
        }
    }
    template <int SUMS>
    __device__ void store(const float (&sum)[SUMS], const Finished&) {
#pragma unroll
        for (int i = 0; i < SUMS / 2; ++i) {
            auto& pair = pairs[i / 2][i % 2];
            pair = finish<EPILOGUE>(pair, sum[2 * i], sum[2 * i + 1]);
        }
        out.wait();
        store_pairs<NARROW_PLANE>(out.data() + place, pairs);
    }
    __device__ void publish() { out.publish(); }
};

}  // namespace espan::wgmma_rows
