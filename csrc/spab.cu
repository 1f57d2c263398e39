// spab: a whole block in one kernel; its convolutions stream rows (rows.cuh).
#include "rows.cuh"

namespace espan {
namespace {

template <int CONVS>
cudaError_t launch_block(
    const void* x, const void* weights, const void* biases, void* out, int64_t n, int64_t h,
    int64_t w, Layout layout, cudaStream_t stream) {
    using namespace rows;
    const auto launch_it = layout == Layout::planes
                               ? launch_as<CONVS, Epilogue::gate, Layout::planes>
                               : launch_as<CONVS, Epilogue::gate, Layout::channels_last>;
    return launch_it(x, weights, biases, x, out, n, h, w, stream);
}

}  // namespace

cudaError_t spab(
    const void* x, const void* weights, const void* biases, void* out, int convs, int64_t n,
    int64_t h, int64_t w, Layout layout, cudaStream_t stream) {
    if (convs == 2) return launch_block<2>(x, weights, biases, out, n, h, w, layout, stream);
    if (convs == 3) return launch_block<3>(x, weights, biases, out, n, h, w, layout, stream);
    return cudaErrorInvalidValue;
}

}  // namespace espan
