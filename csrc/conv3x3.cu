// conv3x3: one convolution that streams rows (rows.cuh), with its epilogue.
#include "common/rows.cuh"

namespace espan {
namespace {

template <int CHANNELS>
rows::Launch* in_layout(Layout layout, bool half_sums) {
    using namespace rows;
    if (layout == Layout::channels_last) {
        return half_sums ? nullptr : launch_as<CHANNELS, 1, Layout::channels_last, false>;
    }
    if constexpr (CHANNELS > 24) {
        if (half_sums) return launch_as<CHANNELS, 1, Layout::planes, true>;
    }
    return half_sums ? nullptr : launch_as<CHANNELS, 1, Layout::planes, false>;
}

rows::Launch* of_channels(int channels, Layout layout, bool half_sums) {
    switch (channels) {
        case 24: return in_layout<24>(layout, half_sums);
        case 32: return in_layout<32>(layout, half_sums);
        case 40: return in_layout<40>(layout, half_sums);
        case 48: return in_layout<48>(layout, half_sums);
        case 56: return in_layout<56>(layout, half_sums);
        case 64: return in_layout<64>(layout, half_sums);
    }
    return nullptr;
}

}  // namespace

cudaError_t conv3x3(
    const void* x, const void* weights, const void* biases, const void* gate, void* out,
    Epilogue epilogue, int channels, int64_t n, int64_t h, int64_t w, Layout layout,
    bool half_sums, cudaStream_t stream) {
    const auto launch_it = of_channels(channels, layout, half_sums);
    if (!launch_it) return cudaErrorInvalidValue;
    return launch_it(x, weights, biases, gate, out, epilogue, n, h, w, stream);
}

}  // namespace espan
