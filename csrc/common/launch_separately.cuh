// Runs the convolutions of a block as one kernel each.
#pragma once

#include "common/base.cuh"

namespace espan {

// Hidden feature maps alternate between scratch and out so that the last convolution reads scratch.
// `conv`: the parameters of the first convolution, run by `launch`; its weights take
// `weight_bytes`.
template <typename Block, typename Conv>
cudaError_t launch_separately(
    const Block& block, Conv conv, int64_t weight_bytes,
    cudaError_t (*launch)(const Conv&, cudaStream_t), cudaStream_t stream) {
    for (int left = block.convs; left > 0; --left) {
        conv.out = left % 2 ? block.out : block.scratch;
        conv.epilogue = left == 1 ? Epilogue::gate : Epilogue::silu;
        if (const auto error = launch(conv, stream)) return error;
        conv.x = conv.out;
        conv.weights = static_cast<const char*>(conv.weights) + weight_bytes;
        conv.biases = static_cast<const float*>(conv.biases) + conv.channels;
    }
    return cudaSuccess;
}

}  // namespace espan
