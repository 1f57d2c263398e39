#include "run.h"

namespace espan_cpu {

void run_avx2(const Layers<float>& layers, int threads) { run_on<Avx2>(layers, threads); }

bool to_bytes_avx2(const Pixels<float>& pixels, int threads) {
    return to_bytes<Lanes256>(pixels, threads);
}

}  // namespace espan_cpu
