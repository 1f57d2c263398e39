#include "run.h"

namespace espan_cpu {

void run_amx(const Layers<Bfloat16>& layers, int threads) { run_on<Amx>(layers, threads); }

void run_avx512_bf16(const Layers<Bfloat16>& layers, int threads) {
    run_on<Avx512Bf16>(layers, threads);
}

bool to_bytes_avx512_bf16(const Pixels<Bfloat16>& pixels, int threads) {
    return to_bytes<Lanes512Bf16>(pixels, threads);
}

}  // namespace espan_cpu
