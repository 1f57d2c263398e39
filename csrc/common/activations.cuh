// SiLU and SPAN's gate of a convolution z, from half of it, which is what halved weights give: so
// both cost one special function.
#pragma once

#include "common/ptx.cuh"

namespace espan {

// silu(z) for h = z / 2. tanh is off by 2^-11 of it at most, SiLU by |z| 2^-12.
__device__ inline float silu_of_half(float h) { return h * tanh_approx(h) + h; }

// (z + x) * (sigmoid(z) - 1/2) for h = z / 2.
__device__ inline float gate_by_half(float x, float h) {
    return (0.5f * x + h) * tanh_approx(h);
}

// EPILOGUE of a pair of results, in halves; `before`: the pair of the gate.
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
