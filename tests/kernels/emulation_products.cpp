// Test cases for the emulated wgmma of the host build; see emulation.cpp.
#include "emulation.h"

namespace {

// Pitches of the matrices in shared memory are larger than their rows; A starts at an odd row.
constexpr int A_PLANE = 70 * 16, A_FIRST = 3 * 16, B_PLANE = 200 * 16;

// Integers, whose products have exact sums.
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

// Sums initialised with their indices.
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

// Memory read through a wrong descriptor was never stored.
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

// One product of small matrices in flight.
struct Begun {
    const Operands at;
    float d[16];

    explicit Begun(bool is_fenced = true) : at(is_fenced) {
        begin(d);
        wgmma_fence();
        wgmma(d, at.rows(), at.columns());
    }
};

void unfenced_operands() {
    Begun one(false);
    wgmma_commit();
    wgmma_wait<0>();
    end(one.d, 1);
}

void read_in_flight() {
    Begun one;
    wgmma_commit();
    end(one.d, 1);
}

void written_in_flight() {
    Begun one;
    one.d[3] = 0;
    wgmma_commit();
    wgmma_wait<0>();
}

void never_waited_for() {
    Begun one;
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

// A product with descriptors that are offset or modified in this thread.
void multiply(uint64_t (*change_a)(uint64_t), uint64_t (*change_b)(uint64_t)) {
    const Operands at;
    float d[16];
    begin(d);
    wgmma_fence();
    wgmma(d, change_a(at.rows()), change_b(at.columns()));
    wgmma_commit();
    wgmma_wait<0>();
}

uint64_t same(uint64_t descriptor) { return descriptor; }

void lanes_differ() {
    multiply(same, [](uint64_t b) { return moved(b, lane_id() == 9 ? 16 : 0); });
}

void warps_differ() {
    multiply([](uint64_t a) { return moved(a, threadIdx.x < 96 ? 0 : 16); }, same);
}

void swizzled() {
    multiply([](uint64_t a) { return a | uint64_t(1) << 62; }, same);
}

}  // namespace

Cases cases_of_products() {
    return {
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
    };
}
