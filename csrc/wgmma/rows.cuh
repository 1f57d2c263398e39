// 3x3 convolutions of few channels that stream rows, on the tensor cores of sm_90a: one to three of
// them in one kernel. The same walk as common/rows.cuh, by other means.
//
// A block walks down a strip of 64 columns, one row at a time. Its first warpgroups compute one
// convolution each; of the last one a warp loads rows of the input, a thread loads the rows of the
// gate, a thread stores rows of output. All hand rows on through rings in shared memory,
// [slot][plane][column][8 channels]: 8 pixels of a plane are a core matrix of wgmma as they lie,
// and a matrix may begin at any pixel. Weights stay in shared memory.
#pragma once

#include "wgmma/convolve.cuh"
#include "wgmma/copies.cuh"

namespace espan::wgmma_rows {

// Registers of a thread that computes, and of one that copies: of 512 threads no more than 64 Ki.
constexpr int COMPUTING = 152, COPYING = 40;

template <class S, int CONVS, int CONV, Epilogue EPILOGUE>
__device__ inline void convolve(const Work& work, Rings<S> rings) {
    const Convolution<S, CONVS, CONV, EPILOGUE> convolution(work, rings);
    const Reader gate(rings.gate());
    if constexpr (CONVS == 1) {
        convolution.run(Reader(rings.input()), Writer(rings.output()), gate);
    } else if constexpr (CONV == 0) {
        convolution.run(Reader(rings.input()), Writer(rings.hidden(0)), gate);
    } else if constexpr (CONV == CONVS - 1) {
        convolution.run(Reader(rings.hidden(CONV - 1)), Writer(rings.output()), gate);
    } else {
        convolution.run(Reader(rings.hidden(CONV - 1)), Writer(rings.hidden(CONV)), gate);
    }
}

// One thread: barriers, and the weights on their way.
template <class S, int CONVS>
__device__ inline void prepare(const Work& work, Rings<S> rings) {
    rings.input().init(1, WARPGROUP_WARPS);
    rings.gate().init(1, WARPGROUP_WARPS);
    rings.output().init(WARPGROUP_WARPS, 1);
    for (int i = 0; i < CONVS - 1; ++i) rings.hidden(i).init(WARPGROUP_WARPS, WARPGROUP_WARPS);
    const Address loaded = rings.start + S::LOADED;
    mbarrier_init(loaded, 1);
    mbarrier_fence_init();
    mbarrier_arrive_expecting(loaded, CONVS * S::W::BYTES);
    bulk_load(rings.start, work.weights, 0, CONVS * S::W::BYTES, loaded);
}

template <int CHANNELS, int CONVS, Epilogue EPILOGUE>
__global__ void __launch_bounds__(Strip<CHANNELS, CONVS>::THREADS, 1) wgmma_kernel(Work work) {
    using S = Strip<CHANNELS, CONVS>;
    SHARED_BYTES(start, S::BYTES);
    const Rings<S> rings{start};
    let_next_kernel_start();
    if (threadIdx.x == 0) prepare<S, CONVS>(work, rings);
    bar_sync(0, S::THREADS);
    const int role = warp_uniform(threadIdx.x / WARPGROUP);
    if (role == CONVS) {
        give_registers<COPYING>();
        wait_for_earlier_kernels();
        const int warp = warp_uniform(threadIdx.x / 32 % WARPGROUP_WARPS);
        if (warp == 0) load_input<S, CONVS>(work, rings);
        if (lane_id() != 0) return;
        if (warp == 1 && EPILOGUE == Epilogue::gate) load_gate<S>(work, rings);
        if (warp == 2) store_output<S>(work, rings);
        return;
    }
    take_registers<COMPUTING>();
    if (role == 0) {
        convolve<S, CONVS, 0, EPILOGUE>(work, rings);
    } else if constexpr (CONVS == 2) {
        convolve<S, CONVS, 1, EPILOGUE>(work, rings);
    } else if constexpr (CONVS == 3) {
        if (role == 1) {
            convolve<S, CONVS, 1, EPILOGUE>(work, rings);
        } else {
            convolve<S, CONVS, 2, EPILOGUE>(work, rings);
        }
    }
}

}  // namespace espan::wgmma_rows
