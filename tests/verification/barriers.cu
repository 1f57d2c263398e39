// A program that is correct by the PTX ISA, with the pattern of csrc's streaming kernels: some warps arrive at
// barriers where others wait. tests/verification/sanitize.py runs it first: races that racecheck reports here are
// false positives.

#include <cstdio>

namespace {

constexpr int LANES = 32, SLOTS = 3, ROUNDS = 20;
constexpr int ALL = 3 * LANES, READERS = 2 * LANES;
constexpr int FULL = 1, EMPTY = FULL + SLOTS, STAGED = EMPTY + SLOTS;

__device__ void bar_sync(int id, int threads) {
    asm volatile("barrier.cta.sync.aligned %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

__device__ void bar_arrive(int id, int threads) {
    asm volatile("barrier.cta.arrive.aligned %0, %1;" ::"r"(id), "r"(threads) : "memory");
}

// A warp fills the slots of a ring. Two others read each slot in reverse into a row, and then the row in reverse, so
// that each lane gets the value of its own number. They synchronize at the next slot's barrier before they write the
// row again.
__global__ void stream(int* out) {
    __shared__ int ring[SLOTS][LANES], row[READERS];
    const int lane = threadIdx.x % LANES, reader = threadIdx.x - LANES;
    if (reader < 0) {
        for (int i = 0; i < ROUNDS; ++i) {
            const int slot = i % SLOTS;
            if (i >= SLOTS) bar_sync(EMPTY + slot, ALL);
            ring[slot][lane] = LANES * i + lane;
            bar_arrive(FULL + slot, ALL);
        }
        // Pairs with the readers' last arrival at each slot.
        for (int i = ROUNDS; i < ROUNDS + SLOTS; ++i) bar_sync(EMPTY + i % SLOTS, ALL);
        return;
    }
    int sum = 0;
    for (int i = 0; i < ROUNDS; ++i) {
        const int slot = i % SLOTS;
        bar_sync(FULL + slot, ALL);
        const int value = ring[slot][LANES - 1 - lane];
        bar_arrive(EMPTY + slot, ALL);
        row[reader] = value;
        bar_sync(STAGED, READERS);
        sum += row[READERS - 1 - reader];
    }
    out[reader] = sum;
}

}  // namespace

int main() {
    int sums[READERS] = {}, *out = nullptr, wrong = 0;
    cudaMalloc(&out, sizeof(sums));
    stream<<<1, ALL>>>(out);
    const cudaError_t error = cudaMemcpy(sums, out, sizeof(sums), cudaMemcpyDeviceToHost);
    for (int i = 0; i < READERS; ++i) {
        wrong += sums[i] != LANES * ROUNDS * (ROUNDS - 1) / 2 + ROUNDS * (i % LANES);
    }
    std::printf("%s, %d of %d sums are wrong\n", cudaGetErrorString(error), wrong, READERS);
    return error != cudaSuccess || wrong;
}
