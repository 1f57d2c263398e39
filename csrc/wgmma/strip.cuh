// Sizes and kernel parameters of the row-streaming wgmma convolutions.
#pragma once

#include "common/cut.cuh"
#include "wgmma/ring.cuh"

namespace espan::wgmma_rows {

constexpr int TAPS = 3;    // kernel rows and columns; output rows in progress
constexpr int PIXEL = 16;  // bytes per pixel of a plane, 8 halves
constexpr int COLUMNS = WARPGROUP_PIXELS;  // computed columns of a strip
constexpr int RING_COLUMNS = COLUMNS + 2;  // columns read
// Bytes of a plane of a row [plane][column][8 channels], with and without the columns' halo.
constexpr int PLANE = RING_COLUMNS * PIXEL, NARROW_PLANE = COLUMNS * PIXEL;

// The weights of a convolution, in shared memory and in `weights` of the parameters: (3 kernel
// columns, groups of 16 input channels, 2 halves, 5 kernel rows, output planes, 8 output channels,
// 8 input channels) halves. Kernel rows are stored as 2, 1, 0, 2, 1: any three in sequence match
// the output rows in progress. An odd last input plane is padded with one of zeros.
template <int IN, int OUT>
struct Weights {
    static constexpr int PLANES = IN, OUT_PLANES = OUT;
    static constexpr int STEPS = (IN + 1) / 2;         // of 16 input channels
    static constexpr int ROW = OUT * 128;              // bytes of a kernel row
    static constexpr int HALF = (2 * TAPS - 1) * ROW;  // of 8 input channels
    static constexpr int BYTES = TAPS * STEPS * 2 * HALF;
    // The offset of the first kernel row if an input row finishes output row `done` of the three in
    // progress; it is the second row of the next one and the first of the one after.
    __device__ static constexpr int shift(int done) { return (TAPS - done) % TAPS * ROW; }
};

// CONVS convolutions of P planes in rows of COLUMNS; each one after the first invalidates one more
// column on either side. Each has a warpgroup; one more warpgroup loads and stores.
template <int P, int CONVS>
struct Strip {
    static constexpr int PLANES = P, HALO = CONVS - 1, USEFUL = COLUMNS - 2 * HALO;
    static constexpr int THREADS = (CONVS + 1) * WARPGROUP;
    using W = Weights<P, P>;
    using Input = Ring<CONVS == 1 ? 3 : 4, P * PLANE>;
    using Hidden = Ring<3, P * PLANE>;
    using Gate = Ring<CONVS == 1 ? 2 : 3, P * NARROW_PLANE>;
    using Output = Ring<2, P * NARROW_PLANE>;

    // Offsets in the block's shared memory.
    static constexpr int INPUT = CONVS * W::BYTES;
    static constexpr int HIDDEN = INPUT + Input::DATA_BYTES;
    static constexpr int GATE = HIDDEN + HALO * Hidden::DATA_BYTES;
    static constexpr int OUTPUT = GATE + Gate::DATA_BYTES;
    static constexpr int LOADED = OUTPUT + Output::DATA_BYTES;  // the barrier of the weights
    static constexpr int INPUT_BARRIERS = LOADED + 8;
    static constexpr int GATE_BARRIERS = INPUT_BARRIERS + Input::BARRIER_BYTES;
    static constexpr int OUTPUT_BARRIERS = GATE_BARRIERS + Gate::BARRIER_BYTES;
    static constexpr int HIDDEN_BARRIERS = OUTPUT_BARRIERS + Output::BARRIER_BYTES;
    static constexpr int BYTES = HIDDEN_BARRIERS + HALO * Hidden::BARRIER_BYTES;
    static_assert(BYTES <= 227 << 10);

    // A multiprocessor has 64 Ki registers and 228 KiB of shared memory, 1 KiB reserved per block.
    static constexpr int BLOCKS = CONVS == 1 && 2 * (BYTES + 1024) <= 228 << 10 ? 2 : 1;
    // Registers per computing thread; copying threads keep 40 and release the rest.
    static constexpr int REGISTERS = CONVS == 3 ? 152 : 208, COPYING = 40;
};

// The size of a kernel's feature maps: pixels per plane, and the division into items.
struct FeatureMaps {
    int64_t area;  // H * W
    Cut cut;
};

// The parameters of a kernel.
struct Work {
    Global<const uint4> x;          // (N, P, H, W) pixels of 8 halves
    Constant<const uint4> weights;  // (convolutions, Weights)
    Constant<const float2> biases;  // (convolutions, 4 P)
    Global<const uint4> gate;       // like x; read only if the last epilogue is `gate`
    Global<uint4> out;              // like x
    FeatureMaps maps;
};

// The rings of a block whose shared memory starts at `start`.
template <class S>
struct Rings {
    Address start;

    __device__ typename S::Input input() const {
        return {start + S::INPUT, start + S::INPUT_BARRIERS};
    }
    __device__ typename S::Gate gate() const {
        return {start + S::GATE, start + S::GATE_BARRIERS};
    }
    __device__ typename S::Output output() const {
        return {start + S::OUTPUT, start + S::OUTPUT_BARRIERS};
    }
    // Between convolutions i and i + 1.
    __device__ typename S::Hidden hidden(int i) const {
        return {start + S::HIDDEN + i * S::Hidden::DATA_BYTES,
                start + S::HIDDEN_BARRIERS + i * S::Hidden::BARRIER_BYTES};
    }
};

}  // namespace espan::wgmma_rows
