// spab: an entire block in one row-streaming kernel (rows.cuh); above 32 channels one kernel per
// convolution.
#include "common/launch_separately.cuh"
#include "common/rows.cuh"

namespace espan {

cudaError_t spab(const SpabParams& params, cudaStream_t stream) {
    const int convs = params.convs;
    if (convs != 2 && convs != 3) return cudaErrorInvalidValue;
    const Conv3x3Params conv{
        params.x, params.weights, params.biases, /*gate=*/params.x, params.out, Epilogue::gate,
        params.channels, params.n, params.h, params.w, params.layout, params.fp16_accumulation};
    if (conv.channels > 32) {
        const int weight_bytes = conv.channels * conv.channels * 9 * 2;
        return launch_separately(params, conv, weight_bytes, conv3x3, stream);
    }
    using rows::launch_in_layout;
    switch (conv.channels) {
        case 24:
            return convs == 2 ? launch_in_layout<24, 2>(conv, stream)
                              : launch_in_layout<24, 3>(conv, stream);
        case 32:
            return convs == 2 ? launch_in_layout<32, 2>(conv, stream)
                              : launch_in_layout<32, 3>(conv, stream);
    }
    return cudaErrorInvalidValue;
}

}  // namespace espan
