// conv3x3_wgmma: one row-streaming convolution with wgmma (wgmma/rows.cuh) and its epilogue.
#include "wgmma/launch.cuh"

namespace espan {
namespace {

template <int PLANES>
cudaError_t launch_planes(const Conv3x3WgmmaParams& p, cudaStream_t stream) {
    using wgmma_rows::launch;
    const wgmma_rows::Rows3x3 rows{
        p.x, p.weights, p.biases, p.gate, p.out, p.n, p.h, p.w, p.overlap};
    switch (p.epilogue) {
        case Epilogue::none: return launch<PLANES, 1, Epilogue::none>(rows, stream);
        case Epilogue::silu: return launch<PLANES, 1, Epilogue::silu>(rows, stream);
        case Epilogue::gate: return launch<PLANES, 1, Epilogue::gate>(rows, stream);
    }
    return cudaErrorInvalidValue;
}

}  // namespace

cudaError_t conv3x3_wgmma(const Conv3x3WgmmaParams& params, cudaStream_t stream) {
    switch (params.channels) {
        case 32: return launch_planes<4>(params, stream);
        case 48: return launch_planes<6>(params, stream);
        case 56: return launch_planes<7>(params, stream);
        case 64: return launch_planes<8>(params, stream);
    }
    return cudaErrorInvalidValue;
}

}  // namespace espan
