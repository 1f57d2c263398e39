// conv3x3: one row-streaming convolution (rows.cuh) with its epilogue.
#include "common/rows.cuh"

namespace espan {

cudaError_t conv3x3(const Conv3x3Params& params, cudaStream_t stream) {
    switch (params.channels) {
        case 24: return rows::launch_in_layout<24, 1>(params, stream);
        case 32: return rows::launch_in_layout<32, 1>(params, stream);
        case 40: return rows::launch_in_layout<40, 1>(params, stream);
        case 48: return rows::launch_in_layout<48, 1>(params, stream);
        case 56: return rows::launch_in_layout<56, 1>(params, stream);
        case 64: return rows::launch_in_layout<64, 1>(params, stream);
    }
    return cudaErrorInvalidValue;
}

}  // namespace espan
