// spab: a whole block in one kernel, whose convolutions stream rows (rows.cuh); past 32 channels
// a kernel for each convolution.
#include "common/rows.cuh"

namespace espan {
namespace {

template <int CHANNELS, int CONVS>
rows::Launch* in_layout(Layout layout, bool half_sums) {
    using namespace rows;
    if (layout == Layout::channels_last) {
        return half_sums ? nullptr : launch_as<CHANNELS, CONVS, Layout::channels_last, false>;
    }
    if constexpr (CHANNELS > 24) {
        if (half_sums) return launch_as<CHANNELS, CONVS, Layout::planes, true>;
    }
    return half_sums ? nullptr : launch_as<CHANNELS, CONVS, Layout::planes, false>;
}

// Hidden pictures lie in scratch and out by turns, so that the last convolution reads scratch.
cudaError_t one_by_one(
    const void* x, const char* weights, const char* biases, void* scratch, void* out, int convs,
    int channels, int64_t n, int64_t h, int64_t w, Layout layout, bool half_sums,
    cudaStream_t stream) {
    const void* from = x;
    for (int conv = 0; conv < convs; ++conv) {
        const bool is_last = conv == convs - 1;
        void* to = (convs - conv) % 2 ? out : scratch;
        const auto epilogue = is_last ? Epilogue::gate : Epilogue::silu;
        const auto error = conv3x3(
            from, weights, biases, x, to, epilogue, channels, n, h, w, layout, half_sums, stream);
        if (error) return error;
        from = to;
        weights += channels * channels * 9 * 2;
        biases += channels * 4;
    }
    return cudaSuccess;
}

}  // namespace

cudaError_t spab(
    const void* x, const void* weights, const void* biases, void* scratch, void* out, int convs,
    int channels, int64_t n, int64_t h, int64_t w, Layout layout, bool half_sums,
    cudaStream_t stream) {
    if (convs != 2 && convs != 3) return cudaErrorInvalidValue;
    if (channels > 32) {
        return one_by_one(
            x, static_cast<const char*>(weights), static_cast<const char*>(biases), scratch, out,
            convs, channels, n, h, w, layout, half_sums, stream);
    }
    if (channels != 24 && channels != 32) return cudaErrorInvalidValue;
    const auto launch_it = channels == 24 ? convs == 2 ? in_layout<24, 2>(layout, half_sums)
                                                       : in_layout<24, 3>(layout, half_sums)
                           : convs == 2   ? in_layout<32, 2>(layout, half_sums)
                                          : in_layout<32, 3>(layout, half_sums);
    return launch_it(x, weights, biases, x, out, Epilogue::gate, n, h, w, stream);
}

}  // namespace espan
