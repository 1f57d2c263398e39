// spab: a whole block in one kernel, whose convolutions stream rows (rows.cuh); past 32 channels
// a kernel for each convolution.
#include "common/rows.cuh"

namespace espan {
namespace {

// Hidden feature maps alternate between scratch and out, so that the last convolution reads
// scratch. `conv`: the parameters of the block as one convolution.
cudaError_t one_by_one(const SpabParams& params, Conv3x3Params conv, cudaStream_t stream) {
    for (int left = params.convs; left > 0; --left) {
        conv.out = left % 2 ? params.out : params.scratch;
        conv.epilogue = left == 1 ? Epilogue::gate : Epilogue::silu;
        if (const auto error = conv3x3(conv, stream)) return error;
        conv.x = conv.out;
        const int weight_bytes = conv.channels * conv.channels * 9 * 2;
        conv.weights = static_cast<const char*>(conv.weights) + weight_bytes;
        conv.biases = static_cast<const float*>(conv.biases) + conv.channels;
    }
    return cudaSuccess;
}

}  // namespace

cudaError_t spab(const SpabParams& params, cudaStream_t stream) {
    const int convs = params.convs;
    if (convs != 2 && convs != 3) return cudaErrorInvalidValue;
    const Conv3x3Params conv{
        params.x, params.weights, params.biases, /*gate=*/params.x, params.out, Epilogue::gate,
        params.channels, params.n, params.h, params.w, params.layout, params.half_sums};
    if (conv.channels > 32) return one_by_one(params, conv, stream);
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
