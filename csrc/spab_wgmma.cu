// spab_wgmma: spab of 32 channels by wgmma, a whole block in one kernel (wgmma/rows.cuh).
#include "wgmma/launch.cuh"

namespace espan {

cudaError_t spab_wgmma(const SpabWgmmaParams& p, cudaStream_t stream) {
    const wgmma_rows::Rows3x3 rows{p.x, p.weights, p.biases, p.x, p.out, p.n, p.h, p.w, p.overlap};
    if (p.channels == 32 && p.convs == 2) {
        return wgmma_rows::launch<32, 2, Epilogue::gate>(rows, stream);
    }
    if (p.channels == 32 && p.convs == 3) {
        return wgmma_rows::launch<32, 3, Epilogue::gate>(rows, stream);
    }
    return cudaErrorInvalidValue;
}

}  // namespace espan
