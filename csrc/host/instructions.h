// Emulates the instructions of ptx.cuh as specified by the PTX ISA.
#pragma once

#include "memory.h"

namespace espan {
namespace shim {

inline float low_half(uint32_t word) { return __half2float({uint16_t(word)}); }
inline float high_half(uint32_t word) { return __half2float({uint16_t(word >> 16)}); }

// The 16 bytes at memory[word], checked for bounds and alignment.
inline uint32_t* chunk(Shared<uint32_t> memory, int word) {
    check("shared", word, 4, memory.size);
    check_aligned(memory.data + word);
    return memory.data + word;
}

}  // namespace shim

inline int lane_id() { return shim::self().thread.x % shim::LANES; }

inline void ldmatrix_x4(uint32_t (&a)[4], Shared<uint32_t> rows, int word) {
    struct Arguments {
        uint32_t* a;
        const uint32_t* row;
    } arguments{a, shim::chunk(rows, word)};
    shim::collective("ldmatrix", arguments, [](auto lane) {
        for (int l = 0; l < shim::LANES; ++l) {
            for (int m = 0; m < 4; ++m) lane(l).a[m] = lane(8 * m + l / 4).row[l % 4];
        }
    });
}

inline void ldmatrix_x2(uint32_t (&a)[4], Shared<uint32_t> rows, int word) {
    struct Arguments {
        uint32_t* a;
        const uint32_t* row;
    } arguments{a, lane_id() < 16 ? shim::chunk(rows, word) : nullptr};
    shim::collective("ldmatrix", arguments, [](auto lane) {
        for (int l = 0; l < shim::LANES; ++l) {
            for (int m = 0; m < 2; ++m) lane(l).a[m] = lane(8 * m + l / 4).row[l % 4];
        }
    });
}

namespace shim {

inline void add(float& sum, float more) { sum += more; }
inline void add(uint16_t& sum, float more) {
    sum = __float2half_rn(__half2float({sum}) + more).bits;
}

// d += A B with K columns and rows; lanes hold K / 4 words of A and K / 8 of B. Each instruction
// rounds its sum once, to the type of d.
template <int K, typename Sum>
void mma(const char* name, Sum* d, const uint32_t (&a)[4], const uint32_t (&b)[2]) {
    struct Arguments {
        Sum* d;
        const uint32_t *a, *b;
    } arguments{d, a, b};
    collective(name, arguments, [](auto lane) {
        float A[16][K], B[8][K];  // B is transposed
        for (int l = 0; l < LANES; ++l) {
            const int g = l / 4, q = l % 4;
            for (int i = 0; i < K / 4; ++i) {
                float* pair = &A[g + 8 * (i % 2)][2 * q + 8 * (i / 2)];
                pair[0] = low_half(lane(l).a[i]);
                pair[1] = high_half(lane(l).a[i]);
            }
            for (int i = 0; i < K / 8; ++i) {
                B[g][2 * q + 8 * i] = low_half(lane(l).b[i]);
                B[g][2 * q + 8 * i + 1] = high_half(lane(l).b[i]);
            }
        }
        for (int l = 0; l < LANES; ++l) {
            for (int i = 0; i < 4; ++i) {
                const float* row = A[l / 4 + 8 * (i / 2)];
                const float* column = B[l % 4 * 2 + i % 2];
                float sum = 0;
                for (int k = 0; k < K; ++k) sum += row[k] * column[k];
                add(lane(l).d[i], sum);
            }
        }
    });
}

}  // namespace shim

inline void mma_m16n8k16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    shim::mma<16>("mma of 16", d, a, {b0, b1});
}

inline void mma_m16n8k8(float (&d)[4], const uint32_t (&a)[4], uint32_t b0) {
    shim::mma<8>("mma of 8", d, a, {b0, 0});
}

inline void mma_m16n8k16(uint32_t (&d)[2], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    shim::mma<16>("mma of 16", reinterpret_cast<uint16_t*>(d), a, {b0, b1});
}

inline void mma_m16n8k8(uint32_t (&d)[2], const uint32_t (&a)[4], uint32_t b0) {
    shim::mma<8>("mma of 8", reinterpret_cast<uint16_t*>(d), a, {b0, 0});
}

// The target is poisoned until the copy happens, which is in the wait.
inline void cp_async16(
    Shared<uint32_t> to, int word, Global<const uint32_t> from, int64_t i, bool inside) {
    uint32_t* target = shim::chunk(to, word);
    if (inside) {
        shim::check("global", i, 4, from.size);
        shim::check_aligned(from.data + i);
    }
    shim::poison(target, 16);
    shim::self().copies.push_back({target, inside ? from.data + i : nullptr});
}

inline void cp_async_commit() {
    auto& fiber = shim::self();
    fiber.groups.push_back(std::move(fiber.copies));
    fiber.copies.clear();
}

template <int PENDING>
void cp_async_wait() {
    auto& groups = shim::self().groups;
    for (; groups.size() > PENDING; groups.pop_front()) {
        for (const shim::Copy& copy : groups.front()) {
            if (copy.from) {
                std::memcpy(copy.to, copy.from, 16);
            } else {
                std::memset(copy.to, 0, 16);
            }
        }
    }
    shim::yield();
}

inline void prefetch_l2(Global<const uint32_t> from, int64_t i) {
    shim::check("global", i, 1, from.size);
}

inline void bar_sync(int id, int threads) { shim::arrive_at_barrier(id, threads, true); }
inline void bar_arrive(int id, int threads) { shim::arrive_at_barrier(id, threads, false); }

inline void warp_sync() {
    int nothing = 0;
    shim::collective("warp_sync", nothing, [](auto) {});
}

inline int warp_uniform(int value) {
    shim::collective("warp_uniform", value, [](auto lane) {
        for (int l = 1; l < shim::LANES; ++l) {
            if (lane(l) != lane(0)) shim::fail_in_thread("warp_uniform of values that differ");
        }
    });
    return value;
}

inline float tanh_approx(float x) {
    const float error = __float_as_uint(x) % 2 ? shim::tanh_error() : -shim::tanh_error();
    return std::tanh(x) * (1 + error);
}

inline uint32_t max_magnitudes(uint32_t most, uint32_t word) {
    const uint32_t low = std::max(most & 0xffff, word & 0x7fff);
    return low | std::max(most >> 16, word >> 16 & 0x7fff) << 16;
}

inline uint32_t pack_half2(float low, float high) {
    return __float2half_rn(low).bits | uint32_t(__float2half_rn(high).bits) << 16;
}

inline float2 unpack_half2(uint32_t word) { return {shim::low_half(word), shim::high_half(word)}; }

}  // namespace espan
