// SiLU and SPAN's gate of a convolution z, computed from z / 2 (the weights are halved), so that
// each costs one special function.
#pragma once

#include "common/ptx.cuh"

namespace espan {

// silu(z) for h = z / 2. The relative error of tanh is at most 2^-11, the error of SiLU |z| 2^-12.
__device__ inline float silu_of_half(float h) { return h * tanh_approx(h) + h; }

// (z + x) * (sigmoid(z) - 1/2) for h = z / 2.
__device__ inline float gate_by_half(float x, float h) {
    return (0.5f * x + h) * tanh_approx(h);
}

// Applies EPILOGUE to a pair of results and packs them as halves; `before`: the gate's pair.
template <Epilogue EPILOGUE>
__device__ inline uint32_t finish(uint32_t before, float z0, float z1) {
    if constexpr (EPILOGUE == Epilogue::silu) {
        return pack_half2(silu_of_half(z0), silu_of_half(z1));
    } else if constexpr (EPILOGUE == Epilogue::gate) {
        const float2 x = unpack_half2(before);
        return pack_half2(gate_by_half(x.x, z0), gate_by_half(x.y, z1));
    } else {
        return pack_half2(z0, z1);
    }
}

}  // namespace espan
