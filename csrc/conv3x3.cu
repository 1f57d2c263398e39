// conv3x3: one convolution that streams rows (rows.cuh), with its epilogue.
#include "rows.cuh"

namespace espan {
namespace {

template <Epilogue EPILOGUE>
cudaError_t launch_with(
    const void* x, const void* weights, const void* biases, const void* gate, void* out, int64_t n,
    int64_t h, int64_t w, Layout layout, cudaStream_t stream) {
    using namespace rows;
    const auto launch_it = layout == Layout::planes
                               ? launch_as<1, EPILOGUE, Layout::planes>
                               : launch_as<1, EPILOGUE, Layout::channels_last>;
    return launch_it(x, weights, biases, gate, out, n, h, w, stream);
}

}  // namespace

cudaError_t conv3x3(
    const void* x, const void* weights, const void* biases, const void* gate, void* out,
    Epilogue epilogue, int64_t n, int64_t h, int64_t w, Layout layout, cudaStream_t stream) {
    const auto launch_it = epilogue == Epilogue::gate   ? launch_with<Epilogue::gate>
                           : epilogue == Epilogue::silu ? launch_with<Epilogue::silu>
                                                        : launch_with<Epilogue::none>;
    return launch_it(x, weights, biases, gate, out, n, h, w, layout, stream);
}

}  // namespace espan
