// Test cases for the emulated sm_90a instructions of the host build: `emulation CASE SEED` prints
// "right" or an error. tests/kernels/test_emulation.py has the expected output of each case.
#include "emulation.h"

#include <cstdio>
#include <cstdlib>

namespace {

// Lane 8 m + r passes the address of row r of matrix m; lane 4 r + c / 2 provides its element c.
template <int COUNT>
void matrices() {
    SHARED_BYTES(start, BYTES);
    const auto word = [](int lane, int matrix) { return uint32_t(100 * lane + matrix); };
    const int lane = lane_id(), permuted = 5 * lane % 32;
    uint32_t given[COUNT], row[4], back[COUNT];
    for (int i = 0; i < COUNT; ++i) given[i] = word(lane, i);
    store_matrices(start + 48 * permuted, given);
    std::memcpy(row, shim::generic(start + 48 * permuted), 16);
    for (int i = 0; i < 4 && lane < 8 * COUNT; ++i) {
        expect(row[i] == word(lane % 8 * 4 + i, lane / 8), "a wrong word in memory");
    }
    load_matrices(back, start + 48 * permuted);
    for (int i = 0; i < COUNT; ++i) expect(back[i] == given[i], "a wrong word in a register");
}

// Warp 0 counts; warp 1 sees every count before warp 0 continues.
void phases() {
    static int count, seen;
    SHARED_BYTES(start, BYTES);
    const Address counted = start, checked = start + 8;
    if (threadIdx.x == 0) {
        count = seen = 0;
        mbarrier_init(counted, 32);
        mbarrier_init(checked, 1);
    }
    bar_sync(0, 64);
    for (uint32_t round = 0; round < 5; ++round) {
        if (threadIdx.x < 32) {
            shim::wait_past(checked, 1 - round % 2, "a check");
            ++count;
            mbarrier_arrive(counted);
        } else if (threadIdx.x == 32) {
            shim::wait_past(counted, round % 2, "counts");
            expect(count == 32 * int(round + 1), "a wait that ended early");
            seen = round;
            mbarrier_arrive(checked);
        }
    }
    bar_sync(0, 64);
    expect(seen == 4, "warp 1 missed a count");
}

template <int PARITY>
void wait_for_parity() {
    SHARED_BYTES(start, BYTES);
    mbarrier_init(start, 1);
    shim::wait_past(start, PARITY, "a phase");
}

void over_arrival() {
    SHARED_BYTES(start, BYTES);
    mbarrier_init(start, 1);
    mbarrier_arrive_expecting(start, 16);
    mbarrier_arrive(start);
}

void no_barrier() {
    SHARED_BYTES(start, BYTES);
    mbarrier_arrive(start + 8);
}

void stored_over_a_barrier() {
    SHARED_BYTES(start, BYTES);
    mbarrier_init(start + 8, 1);
    store_shared(start, {});
}

// 64 pixels of 16 bytes in global memory, and the addresses that they are copied to.
struct Copies {
    alignas(16) uint32_t words[4 * 64], copied[4 * 64] = {};
    Global<const uint4> from{reinterpret_cast<const uint4*>(words), 64};
    Global<uint4> to{reinterpret_cast<uint4*>(copied), 64};
    Address start, barrier;

    explicit Copies(bool is_fenced = true) {
        for (uint32_t i = 0; i < 4 * 64; ++i) words[i] = i;
        SHARED_BYTES(memory, BYTES);
        start = memory;
        barrier = memory + BYTES - 8;
        mbarrier_init(barrier, 1);
        if (is_fenced) mbarrier_fence_init();
    }
    void load(Address at, int64_t i, int bytes) const {
        mbarrier_arrive_expecting(barrier, bytes);
        bulk_load(at, from, i, bytes, barrier);
    }
    void wait() const { shim::wait_past(barrier, 0, "a bulk copy"); }
};

void loaded_and_stored() {
    const Copies all;
    all.load(all.start + 32, 5, 160);
    all.wait();
    bulk_store(all.to, 7, all.start + 48, 128);
    bulk_commit();
    bulk_wait_read<0>();
    for (uint32_t i = 0; i < 4 * 64; ++i) {
        const bool is_inside = i >= 4 * 7 && i < 4 * 15;
        expect(all.copied[i] == (is_inside ? i - 4 : 0), "a wrong word");
    }
}

void read_before_the_copy_ends() {
    const Copies all;
    all.load(all.start, 0, 64);
    uint32_t word;
    std::memcpy(&word, shim::generic(all.start), 4);
    expect(word == all.words[0], "a wrong word");
}

template <bool IS_FENCED>
void stored_then_copied() {
    const Copies all;
    store_shared(all.start, {1, 2, 3, 4});
    if (IS_FENCED) fence_async();
    bulk_store(all.to, 0, all.start, 16);
    bulk_commit();
    bulk_wait_read<0>();
    expect(all.copied[3] == 4, "data stored without fence_async");
}

template <int AT, int I, int COUNT>
void load_of() {
    const Copies all;
    all.load(all.start + AT, I, COUNT);
}

template <int AT, int I, int COUNT>
void store_of() {
    const Copies all;
    bulk_store(all.to, I, all.start + AT, COUNT);
}

void load_from_byte_4() {
    const Copies all;
    const Global<const uint4> unaligned{reinterpret_cast<const uint4*>(all.words + 1), 63};
    bulk_load(all.start, unaligned, 0, 16, all.barrier);
}

void load_by_an_unfenced_barrier() {
    const Copies all(false);
    all.load(all.start, 0, 16);
}

template <bool IS_COMMITTED>
void ends_with_a_store() {
    const Copies all;
    for (int i = 0; i < 16; ++i) bulk_store(all.to, i, all.start, 16);
    if (IS_COMMITTED) bulk_commit();
}

void too_many_registers() { take_registers<168>(); }

void registers_of_some_warps() {
    if (threadIdx.x >= 32) take_registers<152>();
}

template <bool WAITS>
void before_the_earlier_kernel() {
    const Copies all;
    if (WAITS) wait_for_earlier_kernels();
    all.load(all.start, 0, 16);
    all.wait();
}

const Cases CASES{
    {"matrices, four", {32, matrices<4>}},
    {"matrices, two", {32, matrices<2>}},
    {"phases", {64, phases}},
    {"phase 1 of a new barrier", {1, wait_for_parity<1>}},
    {"phase 0 of a new barrier", {1, wait_for_parity<0>}},
    {"over-arrival", {1, over_arrival}},
    {"no barrier", {1, no_barrier}},
    {"stored over a barrier", {1, stored_over_a_barrier}},
    {"loaded and stored", {1, loaded_and_stored}},
    {"read before the copy ends", {1, read_before_the_copy_ends}},
    {"stored, fenced, copied", {1, stored_then_copied<true>}},
    {"stored, copied", {1, stored_then_copied<false>}},
    {"load past global memory", {1, load_of<0, 62, 48>}},
    {"load from before global memory", {1, load_of<0, -1, 32>}},
    {"load past shared memory", {1, load_of<BYTES - 32, 0, 48>}},
    {"load over a barrier", {1, load_of<BYTES - 32, 0, 32>}},
    {"load of 24 bytes", {1, load_of<0, 0, 24>}},
    {"load to byte 8", {1, load_of<8, 0, 16>}},
    {"load from byte 4", {1, load_from_byte_4}},
    {"load by an unfenced barrier", {1, load_by_an_unfenced_barrier}},
    {"store past global memory", {1, store_of<0, 62, 48>}},
    {"store from past shared memory", {1, store_of<BYTES, 0, 16>}},
    {"store of 24 bytes", {1, store_of<0, 0, 24>}},
    {"store from byte 8", {1, store_of<8, 0, 16>}},
    {"ends with a store", {1, ends_with_a_store<true>}},
    {"ends with a store not committed", {1, ends_with_a_store<false>}},
    {"too many registers", {512, too_many_registers}},
    {"registers of some warps", {128, registers_of_some_warps}},
    {"global memory too early", {1, before_the_earlier_kernel<false>, true}},
    {"global memory in time", {1, before_the_earlier_kernel<true>, true}},
};

}  // namespace

int main(int, char** arguments) {
    Cases all = cases_of_products();
    all.insert(CASES.begin(), CASES.end());
    const Case& one = all.at(arguments[1]);
    shim::seed(std::atoi(arguments[2]));
    const auto error = shim::run(1, one.threads, BYTES, one.overlaps, one.kernel);
    std::puts(error ? shim::failure().c_str() : "right");
}
