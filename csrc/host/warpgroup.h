// Emulates wgmma and related instructions as specified by the PTX ISA.
//
// Products are computed immediately or as late as allowed, at random; until they have completed
// their sums are poisoned.
#pragma once

#include "shared_bytes.h"

namespace espan {
namespace shim {

constexpr uint32_t POISON = 0x7fc0dead;  // a NaN that marks sums in flight

// A matrix with rows of 16 halves, given by a descriptor.
struct View {
    Address start;
    int along_k, along_rows;

    explicit View(uint64_t descriptor)
        : start((descriptor & 0x3fff) << 4),
          along_k((descriptor >> 16 & 0x3fff) << 4),
          along_rows((descriptor >> 32 & 0x3fff) << 4) {
        if (descriptor >> 46) fail_in_thread("a descriptor with a swizzle or an offset");
    }

    // Row i as floats.
    void row(int i, float (&values)[16]) const {
        for (int half = 0; half < 2; ++half) {
            const Address at = start + i / 8 * along_rows + i % 8 * 16 + half * along_k;
            check_range(at, 16);
            uint16_t bits[8];
            std::memcpy(bits, async(at), 16);
            for (int k = 0; k < 8; ++k) values[8 * half + k] = __half2float({bits[k]});
        }
    }
};

struct Product {
    float* d;
    int count;
    uint64_t a, b;
    const uint32_t* fragment;  // A in registers; null: a is its descriptor
};

// The warp's 16 rows of A.
template <typename Lane>
std::vector<std::array<float, 16>> rows_of(Lane lane, int warp) {
    std::vector<std::array<float, 16>> rows(16);
    for (int i = 0; i < 16 && !lane(0).fragment; ++i) {
        float values[16];
        View(lane(0).a).row(16 * warp + i, values);
        std::copy(values, values + 16, rows[i].begin());
    }
    for (int l = 0; l < LANES && lane(0).fragment; ++l) {
        for (int i = 0; i < 4; ++i) {
            float* pair = &rows[l / 4 + i % 2 * 8][l % 4 * 2 + i / 2 * 8];
            pair[0] = low_half(lane(l).fragment[i]);
            pair[1] = high_half(lane(l).fragment[i]);
        }
    }
    return rows;
}

// The index of these registers among the sums in flight; adds and poisons them if they are new.
template <typename Lane>
size_t in_flight(Products& products, Lane lane) {
    for (size_t i = 0; i < products.sums.size(); ++i) {
        const Sums& sums = products.sums[i];
        const ptrdiff_t apart = lane(0).d - sums.registers[0];
        if (apart == 0 && sums.count == lane(0).count) return i;
        if (apart < sums.count && -apart < lane(0).count) {
            fail_in_thread("wgmma of two shapes on the same sums");
        }
    }
    if (!products.is_fenced) fail_in_thread("wgmma without wgmma_fence");
    Sums sums{{}, lane(0).count, {}, false};
    for (int l = 0; l < LANES; ++l) {
        sums.registers.push_back(lane(l).d);
        sums.values.insert(sums.values.end(), lane(l).d, lane(l).d + sums.count);
        for (int i = 0; i < sums.count; ++i) lane(l).d[i] = bits_as<float>(POISON);
    }
    products.sums.push_back(std::move(sums));
    return products.sums.size() - 1;
}

inline void multiply(
    std::vector<float>& sums, int count, const std::vector<std::array<float, 16>>& a, View b) {
    std::vector<std::array<float, 16>> columns(2 * count);
    for (int n = 0; n < 2 * count; ++n) {
        float values[16];
        b.row(n, values);
        std::copy(values, values + 16, columns[n].begin());
    }
    for (int l = 0; l < LANES; ++l) {
        for (int i = 0; i < count; ++i) {
            const auto& row = a[l / 4 + i / 2 % 2 * 8];
            const auto& column = columns[i / 4 * 8 + l % 4 * 2 + i % 2];
            float sum = 0;
            for (int k = 0; k < 16; ++k) sum += row[k] * column[k];
            sums[l * count + i] += sum;
        }
    }
}

// Checks that all warps of a warpgroup issue the same wgmma.
inline void check_alike(Products& products, int warp, const Product& product) {
    auto& known = state().bytes.issued;
    const std::array<uint64_t, 3> mine{
        product.fragment ? 0 : product.a, product.b, uint64_t(product.count)};
    const auto [first, is_new] = known.insert({{warp / WARPGROUP_WARPS, products.issued++}, mine});
    if (!is_new && first->second != mine) fail_in_thread("wgmma that differs between warps");
}

inline void wgmma(Product product) {
    collective("wgmma", product, [](auto lane) {
        const int warp = self().thread.x / LANES;
        Products& products = state().warps[warp].products;
        for (int l = 1; l < LANES; ++l) {
            if (lane(l).a != lane(0).a || lane(l).b != lane(0).b) {
                fail_in_thread("descriptors that differ between lanes");
            }
        }
        const size_t i = in_flight(products, lane);
        const int count = lane(0).count;
        const auto product = [=, b = lane(0).b, a = lane(0).fragment
                                      ? rows_of(lane, 0)
                                      : std::vector<std::array<float, 16>>(),
                              whole = lane(0)]() {
            auto& sums = state().warps[warp].products.sums[i].values;
            const auto rows = whole.fragment
                                  ? a
                                  : rows_of([&](int) { return whole; }, warp % WARPGROUP_WARPS);
            multiply(sums, count, rows, View(b));
        };
        check_alike(products, warp, lane(0));
        products.sums[i].is_committed = false;
        // Products run in the order of issue.
        if (products.open.empty() && products.groups.empty() && random_below(2)) {
            product();
        } else {
            products.open.push_back(product);
        }
    });
}

}  // namespace shim

template <int COUNT>
void wgmma(float (&d)[COUNT], uint64_t a, uint64_t b) {
    shim::wgmma({d, COUNT, a, b, nullptr});
}

template <int COUNT>
void wgmma(float (&d)[COUNT], const uint32_t (&a)[4], uint64_t b) {
    shim::wgmma({d, COUNT, 0, b, a});
}

inline shim::Products& products() {
    return shim::state().warps[shim::self().thread.x / shim::LANES].products;
}

inline void wgmma_fence() {
    int nothing = 0;
    shim::collective("wgmma_fence", nothing, [](auto) { products().is_fenced = true; });
}

inline void wgmma_commit() {
    int nothing = 0;
    shim::collective("wgmma_commit", nothing, [](auto) {
        auto& mine = products();
        mine.groups.push_back(std::move(mine.open));
        mine.open.clear();
        mine.is_fenced = false;
        for (auto& sums : mine.sums) sums.is_committed = true;
    });
}

template <int PENDING>
void wgmma_wait() {
    static_assert(PENDING == 0);  // sums are not tracked by group
    int nothing = 0;
    shim::collective("wgmma_wait", nothing, [](auto) {
        auto& mine = products();
        for (; !mine.groups.empty(); mine.groups.pop_front()) {
            for (const auto& product : mine.groups.front()) product();
        }
        for (const auto& sums : mine.sums) {
            if (!sums.is_committed) continue;
            for (size_t i = 0; i < sums.values.size(); ++i) {
                float& value = sums.registers[i / sums.count][i % sums.count];
                if (__float_as_uint(value) != shim::POISON) {
                    shim::fail_in_thread("sums of a wgmma in flight were written");
                }
                value = sums.values[i];
            }
        }
        mine.sums.clear();
    });
}

template <int COUNT>
void hold(float (&)[COUNT]) {}

inline void take(float& to, float& from, float next) {
    to = from;
    from = next;
}

namespace shim {

inline void set_registers(int count) {
    collective("setmaxnreg", count, [](auto lane) {
        state().warps[self().thread.x / LANES].products.registers = lane(0);
    });
}

inline void check_asynchronous() {
    int registers = 0;
    for (size_t i = 0; i < state().warps.size(); ++i) {
        const Products& mine = state().warps[i].products;
        const Products& first = state().warps[i / WARPGROUP_WARPS * WARPGROUP_WARPS].products;
        registers += mine.registers * LANES;
        if (mine.registers != first.registers) failure() = "setmaxnreg of part of a warpgroup";
        if (!mine.sums.empty()) failure() = "a block ended with wgmma in flight";
        state().failed |= mine.registers != first.registers || !mine.sums.empty();
    }
    for (const auto& fiber : state().fibers) {
        const Asynchronous& mine = fiber->asynchronous;
        if (mine.stores.empty() && mine.groups.empty()) continue;
        failure() = "a block ended before its bulk copies had read shared memory";
        state().failed = true;
    }
    if (registers > 65536) {
        failure() = "setmaxnreg to more registers than there are";
        state().failed = true;
    }
}

}  // namespace shim

template <int COUNT>
void take_registers() {
    shim::set_registers(COUNT);
}

template <int COUNT>
void give_registers() {
    shim::set_registers(COUNT);
}

inline void wait_for_earlier_kernels() { shim::self().has_waited = true; }
inline void let_next_kernel_start() {}

template <typename... Parameters, typename... Arguments>
cudaError_t launch_overlapping(
    void (*kernel)(Parameters...), int64_t blocks, int threads, int bytes, bool overlap,
    cudaStream_t, Arguments... arguments) {
    return shim::run(blocks, threads, bytes, overlap, [=] { kernel(arguments...); });
}

}  // namespace espan
