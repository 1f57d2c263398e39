// Row-streaming 3x3 convolutions of few channels on the tensor cores of sm_90a, one to three fused
// in one kernel. The same algorithm as common/rows.cuh, with wgmma.
//
// A block streams a strip of 64 columns, one row at a time. Its first warpgroups compute one
// convolution each; in the last one a warp loads input rows, another loads gate rows, and a thread
// stores output rows. They pass rows through ring buffers in shared memory,
// [slot][plane][column][8 channels]: 8 pixels of a plane form a core matrix of wgmma without
// rearrangement, and a matrix may start at any pixel. Weights stay in shared memory.
#pragma once

#include "wgmma/copies.cuh"
#include "wgmma/epilogue.cuh"

namespace espan::wgmma_rows {

// Convolution CONV, from ring `in` to ring `out`; EPILOGUE belongs to the last convolution.
template <class S, int CONVS, int CONV, Epilogue EPILOGUE, class In, class Out>
__device__ inline void convolve(const Work& work, Rings<S> rings, In in, Out out) {
    const Reach reach{S::USEFUL, S::HALO, CONVS - CONV};
    const Address weights = rings.start + CONV * S::W::BYTES;
    const auto biases = work.biases.from(CONV * S::PLANES * 4);
    NoExtra none;
    const auto compute = [&](auto sink) {
        convolve_rows<typename S::W>(
            work.maps.cut, reach, Reader<In>(in), weights, biases, none, sink);
    };
    if constexpr (CONV == CONVS - 1) {
        using Gate = typename S::Gate;
        compute(OutputRows<EPILOGUE, Out, Gate, S::PLANES>{Writer(out), Reader(rings.gate())});
    } else {
        compute(HiddenRows<Epilogue::silu, Out>{Writer(out)});
    }
}

template <class S, int CONVS, int CONV, Epilogue EPILOGUE, class In>
__device__ inline void convolve_into_next(const Work& work, Rings<S> rings, In in) {
    if constexpr (CONV == CONVS - 1) {
        convolve<S, CONVS, CONV, EPILOGUE>(work, rings, in, rings.output());
    } else {
        convolve<S, CONVS, CONV, EPILOGUE>(work, rings, in, rings.hidden(CONV));
    }
}

template <class S, int CONVS, Epilogue EPILOGUE>
__device__ inline void copy(const Work& work, Rings<S> rings) {
    wait_for_earlier_kernels();
    const int warp = warp_of_group();
    if (warp == 0) {
        load_rows<S::PLANES, PLANE>(
            work.maps, work.x, rings.input(), S::USEFUL, S::HALO + 1, CONVS);
    } else if (warp == 1 && EPILOGUE == Epilogue::gate) {
        load_rows<S::PLANES, NARROW_PLANE>(
            work.maps, work.gate, rings.gate(), S::USEFUL, S::HALO, 0);
    } else if (warp == 2 && lane_id() == 0) {
        store_rows<S::PLANES>(work.maps, work.out, rings.output(), S::USEFUL, S::HALO);
    }
}

// Called by one thread. Initialises the barriers and starts loading the weights.
template <class S, int CONVS>
__device__ inline void prepare(const Work& work, Rings<S> rings) {
    rings.input().init(1, WARPGROUP_WARPS);
    rings.gate().init(1, WARPGROUP_WARPS);
    rings.output().init(WARPGROUP_WARPS, 1);
    for (int i = 0; i < CONVS - 1; ++i) rings.hidden(i).init(WARPGROUP_WARPS, WARPGROUP_WARPS);
    load_weights(rings.start, work.weights, CONVS * S::W::BYTES, rings.start + S::LOADED);
}

template <int PLANES, int CONVS, Epilogue EPILOGUE>
__global__ void __launch_bounds__(
    Strip<PLANES, CONVS>::THREADS, Strip<PLANES, CONVS>::BLOCKS) wgmma_kernel(Work work) {
    using S = Strip<PLANES, CONVS>;
    SHARED_BYTES(start, S::BYTES);
    const Rings<S> rings{start};
    let_next_kernel_start();
    if (threadIdx.x == 0) prepare<S, CONVS>(work, rings);
    bar_sync(0, S::THREADS);
    const int role = warp_uniform(threadIdx.x / WARPGROUP);
    if (role == CONVS) {
        give_registers<S::COPYING>();
        copy<S, CONVS, EPILOGUE>(work, rings);
        return;
    }
    take_registers<S::REGISTERS>();
    wait_past(rings.start + S::LOADED, 0, "the weights");
    if (role == 0) {
        convolve_into_next<S, CONVS, 0, EPILOGUE>(work, rings, rings.input());
    } else if constexpr (CONVS == 2) {
        convolve_into_next<S, CONVS, 1, EPILOGUE>(work, rings, rings.hidden(0));
    } else if constexpr (CONVS == 3) {
        if (role == 1) {
            convolve_into_next<S, CONVS, 1, EPILOGUE>(work, rings, rings.hidden(0));
        } else {
            convolve_into_next<S, CONVS, 2, EPILOGUE>(work, rings, rings.hidden(1));
        }
    }
}

}  // namespace espan::wgmma_rows
