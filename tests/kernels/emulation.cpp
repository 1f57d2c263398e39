// The instructions of sm_90a as the host build has them, a few at a time: `emulation CASE SEED`
// prints "right", or what went wrong. tests/kernels/test_emulation.py says which case ends how.
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include "wgmma/instructions.cuh"

using namespace espan;

namespace {

constexpr int BYTES = 32 << 10;
// Of the matrices in shared memory: more than their rows, and A begins at an odd one.
constexpr int A_PLANE = 70 * 16, A_FIRST = 3 * 16, B_PLANE = 200 * 16;

void expect(bool is_right, const char* what) {
    if (!is_right) shim::fail_in_thread(what);
}

// Whole numbers, whose products have exact sums.
float a_at(int row, int k) { return float((7 * row + 3 * k) % 11 - 5); }
float b_at(int row, int k) { return float((5 * row + 2 * k) % 7 - 3); }

template <typename At>
void store_row(Address plane, int pitch, int row, At at) {
    for (int half = 0; half < 2; ++half) {
        uint32_t words[4];
        for (int i = 0; i < 4; ++i) {
            words[i] = pack_half2(at(row, 8 * half + 2 * i), at(row, 8 * half + 2 * i + 1));
        }
        store_shared(plane + half * pitch + 16 * row, {words[0], words[1], words[2], words[3]});
    }
}

struct Operands {
    Address a, b;

    explicit Operands(bool is_fenced = true) {
        SHARED_BYTES(start, BYTES);
        a = start + A_FIRST;
        b = start + 2 * A_PLANE;
        if (threadIdx.x < 64) store_row(a, A_PLANE, threadIdx.x, a_at);
        for (int n = threadIdx.x; n < 192; n += WARPGROUP) store_row(b, B_PLANE, n, b_at);
        if (is_fenced) fence_async();
        bar_sync(0, WARPGROUP);
    }
    uint64_t rows() const { return Matrix{a, A_PLANE}.descriptor(); }
    uint64_t columns() const { return Matrix{b, B_PLANE}.descriptor(); }
};

// Sums that begin as their numbers.
template <int COUNT>
void begin(float (&d)[COUNT]) {
    for (int i = 0; i < COUNT; ++i) d[i] = float(i);
}

template <int COUNT>
void end(const float (&d)[COUNT], int times) {
    const int lane = lane_id(), warp = threadIdx.x / 32;
    for (int i = 0; i < COUNT; ++i) {
        float sum = float(i);
        for (int k = 0; k < 16; ++k) {
            sum += times * a_at(16 * warp + lane / 4 + i / 2 % 2 * 8, k) *
                   b_at(i / 4 * 8 + lane % 4 * 2 + i % 2, k);
        }
        expect(d[i] == sum, "a wrong sum");
    }
}

template <int COUNT>
void from_descriptors() {
    const Operands at;
    float d[COUNT];
    begin(d);
    for (int group = 0; group < 2; ++group) {
        wgmma_fence();
        wgmma(d, at.rows(), at.columns());
        wgmma(d, at.rows(), at.columns());
        wgmma_commit();
        wgmma_wait<0>();
    }
    end(d, 4);
}

template <int COUNT>
void from_registers() {
    const Operands at;
    const int row = threadIdx.x / 32 * 16 + lane_id() / 4, k = lane_id() % 4 * 2;
    uint32_t a[4];
    for (int i = 0; i < 4; ++i) {
        const int r = row + i % 2 * 8, c = k + i / 2 * 8;
        a[i] = pack_half2(a_at(r, c), a_at(r, c + 1));
    }
    float d[COUNT];
    begin(d);
    wgmma_fence();
    wgmma(d, a, at.columns());
    wgmma_commit();
    wgmma_wait<0>();
    end(d, 1);
}

// What a wrong descriptor reads was never stored.
template <int A_OFF, int B_OFF>
void descriptor_off() {
    const Operands at;
    float d[16];
    begin(d);
    wgmma_fence();
    wgmma(d, Matrix{at.a, A_PLANE + A_OFF}.descriptor(),
          Matrix{at.b, B_PLANE + B_OFF}.descriptor());
    wgmma_commit();
    wgmma_wait<0>();
    end(d, 1);
}

void unfenced_operands() {
    const Operands at(false);
    float d[16];
    begin(d);
    wgmma_fence();
    wgmma(d, at.rows(), at.columns());
    wgmma_commit();
    wgmma_wait<0>();
    end(d, 1);
}

void read_in_flight() {
    const Operands at;
    float d[16];
    begin(d);
    wgmma_fence();
    wgmma(d, at.rows(), at.columns());
    wgmma_commit();
    end(d, 1);
}

void written_in_flight() {
    const Operands at;
    float d[16];
    begin(d);
    wgmma_fence();
    wgmma(d, at.rows(), at.columns());
    d[3] = 0;
    wgmma_commit();
    wgmma_wait<0>();
}

void never_waited_for() {
    const Operands at;
    float d[16];
    begin(d);
    wgmma_fence();
    wgmma(d, at.rows(), at.columns());
    wgmma_commit();
}

void no_wgmma_fence() {
    const Operands at;
    float d[16];
    begin(d);
    wgmma(d, at.rows(), at.columns());
}

void two_shapes() {
    const Operands at;
    float d[48];
    begin(d);
    wgmma_fence();
    wgmma(d, at.rows(), at.columns());
    wgmma(reinterpret_cast<float(&)[16]>(d[16]), at.rows(), at.columns());
}

void lanes_differ() {
    const Operands at;
    float d[16];
    begin(d);
    wgmma_fence();
    wgmma(d, at.rows(), moved(at.columns(), lane_id() == 9 ? 16 : 0));
}

void warps_differ() {
    const Operands at;
    float d[16];
    begin(d);
    wgmma_fence();
    wgmma(d, moved(at.rows(), threadIdx.x < 96 ? 0 : 16), at.columns());
    wgmma_commit();
    wgmma_wait<0>();
}

void swizzled() {
    const Operands at;
    float d[16];
    begin(d);
    wgmma_fence();
    wgmma(d, at.rows() | uint64_t(1) << 62, at.columns());
}

// Matrix m has its row r where lane 8 m + r says, and there element c from lane 4 r + c / 2.
template <int COUNT>
void matrices() {
    SHARED_BYTES(start, BYTES);
    const auto word = [](int lane, int matrix) { return uint32_t(100 * lane + matrix); };
    const int lane = lane_id(), turned = 5 * lane % 32;
    uint32_t given[COUNT], row[4], back[COUNT];
    for (int i = 0; i < COUNT; ++i) given[i] = word(lane, i);
    store_matrices(start + 48 * turned, given);
    std::memcpy(row, shim::generic(start + 48 * turned), 16);
    for (int i = 0; i < 4 && lane < 8 * COUNT; ++i) {
        expect(row[i] == word(lane % 8 * 4 + i, lane / 8), "a wrong word in memory");
    }
    load_matrices(back, start + 48 * turned);
    for (int i = 0; i < COUNT; ++i) expect(back[i] == given[i], "a wrong word in a register");
}

// Warp 0 counts, warp 1 sees every count before warp 0 goes on.
void phases() {
    static int count, seen;
    SHARED_BYTES(start, BYTES);
    const Address counted = start, looked = start + 8;
    if (threadIdx.x == 0) {
        count = seen = 0;
        mbarrier_init(counted, 32);
        mbarrier_init(looked, 1);
    }
    bar_sync(0, 64);
    for (uint32_t round = 0; round < 5; ++round) {
        if (threadIdx.x < 32) {
            shim::wait_past(looked, 1 - round % 2, "a look");
            ++count;
            mbarrier_arrive(counted);
        } else if (threadIdx.x == 32) {
            shim::wait_past(counted, round % 2, "counts");
            expect(count == 32 * int(round + 1), "a wait that ended early");
            seen = round;
            mbarrier_arrive(looked);
        }
    }
    bar_sync(0, 64);
    expect(seen == 4, "a round that nobody saw");
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

// 64 pixels of 16 bytes in global memory, and where they are copied to.
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

void there_and_back() {
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

void read_before_it_is_there() {
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
    expect(all.copied[3] == 4, "what no fence has shown");
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

void load_from_between() {
    const Copies all;
    const Global<const uint4> between{reinterpret_cast<const uint4*>(all.words + 1), 63};
    bulk_load(all.start, between, 0, 16, all.barrier);
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

void registers_of_a_part() {
    if (threadIdx.x >= 32) take_registers<152>();
}

template <bool WAITS>
void before_the_earlier_kernel() {
    const Copies all;
    if (WAITS) wait_for_earlier_kernels();
    all.load(all.start, 0, 16);
    all.wait();
}

struct Case {
    int threads;
    void (*kernel)();
    bool overlaps = false;
};

const std::map<std::string, Case> CASES{
    {"descriptors n32", {128, from_descriptors<16>}},
    {"descriptors n48", {128, from_descriptors<24>}},
    {"descriptors n96", {128, from_descriptors<48>}},
    {"descriptors n128", {128, from_descriptors<64>}},
    {"descriptors n144", {128, from_descriptors<72>}},
    {"descriptors n160", {128, from_descriptors<80>}},
    {"descriptors n168", {128, from_descriptors<84>}},
    {"descriptors n192", {128, from_descriptors<96>}},
    {"registers n32", {128, from_registers<16>}},
    {"registers n96", {128, from_registers<48>}},
    {"registers n160", {128, from_registers<80>}},
    {"A's planes 16 bytes off", {128, descriptor_off<16, 0>}},
    {"B's planes 16 bytes off", {128, descriptor_off<0, 16>}},
    {"operands without a fence", {128, unfenced_operands}},
    {"sums read in flight", {128, read_in_flight}},
    {"sums written in flight", {128, written_in_flight}},
    {"sums never waited for", {128, never_waited_for}},
    {"no wgmma_fence", {128, no_wgmma_fence}},
    {"two shapes", {128, two_shapes}},
    {"lanes differ", {128, lanes_differ}},
    {"warps differ", {128, warps_differ}},
    {"swizzled", {128, swizzled}},
    {"matrices, four", {32, matrices<4>}},
    {"matrices, two", {32, matrices<2>}},
    {"phases", {64, phases}},
    {"phase 1 of a new barrier", {1, wait_for_parity<1>}},
    {"phase 0 of a new barrier", {1, wait_for_parity<0>}},
    {"over-arrival", {1, over_arrival}},
    {"no barrier", {1, no_barrier}},
    {"stored over a barrier", {1, stored_over_a_barrier}},
    {"there and back", {1, there_and_back}},
    {"read before it is there", {1, read_before_it_is_there}},
    {"stored, fenced, copied", {1, stored_then_copied<true>}},
    {"stored, copied", {1, stored_then_copied<false>}},
    {"load past global memory", {1, load_of<0, 62, 48>}},
    {"load from before global memory", {1, load_of<0, -1, 32>}},
    {"load past shared memory", {1, load_of<BYTES - 32, 0, 48>}},
    {"load over a barrier", {1, load_of<BYTES - 32, 0, 32>}},
    {"load of 24 bytes", {1, load_of<0, 0, 24>}},
    {"load to byte 8", {1, load_of<8, 0, 16>}},
    {"load from between", {1, load_from_between}},
    {"load by an unfenced barrier", {1, load_by_an_unfenced_barrier}},
    {"store past global memory", {1, store_of<0, 62, 48>}},
    {"store from past shared memory", {1, store_of<BYTES, 0, 16>}},
    {"store of 24 bytes", {1, store_of<0, 0, 24>}},
    {"store from byte 8", {1, store_of<8, 0, 16>}},
    {"ends with a store", {1, ends_with_a_store<true>}},
    {"ends with a store not committed", {1, ends_with_a_store<false>}},
    {"too many registers", {512, too_many_registers}},
    {"registers of a part", {128, registers_of_a_part}},
    {"global memory too early", {1, before_the_earlier_kernel<false>, true}},
    {"global memory in time", {1, before_the_earlier_kernel<true>, true}},
};

}  // namespace

int main(int, char** arguments) {
    const Case& one = CASES.at(arguments[1]);
    shim::seed(std::atoi(arguments[2]));
    const auto error = shim::run(1, one.threads, BYTES, one.overlaps, one.kernel);
    std::puts(error ? shim::failure().c_str() : "right");
}
