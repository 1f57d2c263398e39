#include "run.h"

namespace espan_cpu {

void run_avx512(const Layers<float>& layers, int threads) { run_on<Avx512>(layers, threads); }

bool to_bytes_avx512(const Pixels<float>& pixels, int threads) {
    return to_bytes<Lanes512>(pixels, threads);
}

}  // namespace espan_cpu
