// spab_wgmma: an entire block of 32 channels in one wgmma kernel (wgmma/rows.cuh); above 32
// channels one kernel per convolution.
#include "common/launch_separately.cuh"
#include "wgmma/launch.cuh"

namespace espan {

cudaError_t spab_wgmma(const SpabWgmmaParams& p, cudaStream_t stream) {
    if (p.channels == 32) {
        const wgmma_rows::Rows3x3 rows{
            p.x, p.weights, p.biases, p.x, p.out, p.n, p.h, p.w, p.overlap};
        if (p.convs == 2) return wgmma_rows::launch<4, 2, Epilogue::gate>(rows, stream);
        if (p.convs == 3) return wgmma_rows::launch<4, 3, Epilogue::gate>(rows, stream);
        return cudaErrorInvalidValue;
    }
    if (p.convs != 2 && p.convs != 3) return cudaErrorInvalidValue;
    const Conv3x3WgmmaParams conv{
        p.x, p.weights, p.biases, /*gate=*/p.x, p.out, Epilogue::gate, p.channels, p.n, p.h, p.w,
        p.overlap};
    const int64_t weight_bytes = p.channels * ceil_div(p.channels, 16) * 16 * 15 * 2;
    return launch_separately(p, conv, weight_bytes, conv3x3_wgmma, stream);
}

}  // namespace espan
