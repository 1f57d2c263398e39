// conv3x3: one convolution that streams rows (rows.cuh), with its epilogue.
#include "rows.cuh"

namespace espan {
namespace {

template <int CHANNELS>
rows::Launch* in_layout(Layout layout) {
    return layout == Layout::planes ? rows::launch_as<CHANNELS, 1, Layout::planes>
                                    : rows::launch_as<CHANNELS, 1, Layout::channels_last>;
}

rows::Launch* of_channels(int channels, Layout layout) {
    switch (channels) {
        case 24: return in_layout<24>(layout);
        case 32: return in_layout<32>(layout);
        case 40: return in_layout<40>(layout);
        case 48: return in_layout<48>(layout);
        case 56: return in_layout<56>(layout);
        case 64: return in_layout<64>(layout);
    }
    return nullptr;
}

}  // namespace

cudaError_t conv3x3(
    const void* x, const void* weights, const void* biases, const void* gate, void* out,
    Epilogue epilogue, int channels, int64_t n, int64_t h, int64_t w, Layout layout,
    cudaStream_t stream) {
    const auto launch_it = of_channels(channels, layout);
    if (!launch_it) return cudaErrorInvalidValue;
    return launch_it(x, weights, biases, gate, out, epilogue, n, h, w, stream);
}

}  // namespace espan
