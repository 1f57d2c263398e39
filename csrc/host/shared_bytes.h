// Emulates shared memory of sm_90a as specified by the PTX ISA: addresses, the two proxies,
// mbarriers, bulk copies.
//
// The async proxy sees stores only after a fence of the storing thread. Bulk copies happen at a
// random time before the wait for them; until then their targets are poisoned.
#pragma once

#include "instructions.h"

namespace espan {
namespace shim {

constexpr Address FIRST = 1024;  // address of shared memory

inline void check_range(Address start, int bytes) {
    const auto size = int64_t(state().bytes.generic.size());
    check("shared byte ", int64_t(start) - FIRST, bytes, size);
}

inline Address shared_bytes(int bytes) {
    Bytes& memory = state().bytes;
    check("dynamic shared memory, byte ", 0, bytes, state().dynamic_bytes);
    if (memory.generic.empty()) {
        memory.generic.assign(bytes, 0xff);
        memory.async.assign(bytes, 0xff);
    }
    return FIRST;
}

// Checks a range that is copied in pieces of 16 bytes.
inline void check_pieces(Address start, int bytes) {
    check_range(start, bytes);
    if (start % 16) fail_in_thread("shared memory, not aligned to 16");
}

// Also checks that a written range contains none of the block's barriers.
inline void check_writable(Address start, int bytes) {
    check_pieces(start, bytes);
    const auto barrier = state().bytes.barriers.lower_bound(start - 7);
    if (barrier == state().bytes.barriers.end() || barrier->first >= start + bytes) return;
    fail_in_thread("written over barrier " + std::to_string(barrier->first));
}

inline uint8_t* generic(Address at) { return state().bytes.generic.data() + (at - FIRST); }
inline uint8_t* async(Address at) { return state().bytes.async.data() + (at - FIRST); }

// Stores 16 bytes that the async proxy does not see yet.
inline void store16(Address to, const void* value) {
    check_writable(to, 16);
    std::memcpy(generic(to), value, 16);
    poison(async(to), 16);
}

inline MemoryBarrier& barrier_at(Address at) {
    auto& barriers = state().bytes.barriers;
    const auto found = barriers.find(at);
    if (found == barriers.end()) {
        fail_in_thread("barrier " + std::to_string(at) + " is not initialised");
    }
    return found->second;
}

inline void end_phase_if_done(MemoryBarrier& barrier) {
    if (barrier.arrived < barrier.expected || barrier.bytes) return;
    barrier.arrived = 0;
    ++barrier.phase;
    for (Fiber* fiber : barrier.waiting) make_ready(*fiber);
    barrier.waiting.clear();
}

inline void wait_past(Address at, uint32_t parity, const char* what) {
    MemoryBarrier& barrier = barrier_at(at);
    while (barrier.phase % 2 == parity) {
        barrier.waiting.push_back(&self());
        wait(what);
    }
    yield();
}

inline void arrive(Address at, int bytes) {
    MemoryBarrier& barrier = barrier_at(at);
    barrier.bytes += bytes;
    if (++barrier.arrived > barrier.expected) fail_in_thread("more arrivals than the barrier has");
    end_phase_if_done(barrier);
    yield();
}

// Runs the event now or defers it, at random.
inline void at_some_time(std::vector<std::function<void()>>& later, std::function<void()> event) {
    if (random_below(2)) {
        event();
    } else {
        later.push_back(std::move(event));
    }
}

}  // namespace shim

#define SHARED_BYTES(name, bytes) const espan::Address name = espan::shim::shared_bytes(bytes)

inline void store_shared(Address to, uint4 value) {
    shim::store16(to, &value);
    shim::self().asynchronous.unfenced.push_back(to);
}

template <int COUNT>
void store_matrices(Address row, const uint32_t (&words)[COUNT]) {
    struct Arguments {
        Address row;
        const uint32_t* words;
    } arguments{row, words};
    shim::collective("stmatrix", arguments, [](auto lane) {
        for (int l = 0; l < 8 * COUNT; ++l) {
            uint32_t row[4];
            for (int i = 0; i < 4; ++i) row[i] = lane(l % 8 * 4 + i).words[l / 8];
            shim::store16(lane(l).row, row);
        }
    });
    // Each lane has to fence the row whose address it passes.
    if (lane_id() < 8 * COUNT) shim::self().asynchronous.unfenced.push_back(row);
}

template <int COUNT>
void load_matrices(uint32_t (&words)[COUNT], Address row) {
    struct Arguments {
        uint32_t* words;
        Address row;
    } arguments{words, row};
    shim::collective("ldmatrix", arguments, [](auto lane) {
        for (int l = 0; l < shim::LANES; ++l) {
            for (int m = 0; m < COUNT; ++m) {
                const Address at = lane(8 * m + l / 4).row;
                shim::check_pieces(at, 16);
                std::memcpy(&lane(l).words[m], shim::generic(at) + l % 4 * 4, 4);
            }
        }
    });
}

inline void fence_async() {
    for (const Address at : shim::self().asynchronous.unfenced) {
        std::memcpy(shim::async(at), shim::generic(at), 16);
    }
    shim::self().asynchronous.unfenced.clear();
}

inline void mbarrier_init(Address at, int arrivals) {
    shim::check_range(at, 8);
    if (at % 8) shim::fail_in_thread("a barrier that is not aligned to 8");
    shim::state().bytes.barriers[at] = {arrivals, 0, 0, 0, {}};
    shim::self().asynchronous.unfenced_barriers = true;
}

inline void mbarrier_fence_init() { shim::self().asynchronous.unfenced_barriers = false; }
inline void mbarrier_arrive(Address at) { shim::arrive(at, 0); }
inline void mbarrier_arrive_expecting(Address at, int bytes) { shim::arrive(at, bytes); }

inline void bulk_load(Address to, Global<const uint4> from, int64_t i, int bytes, Address at) {
    if (bytes <= 0 || bytes % 16) shim::fail_in_thread("a bulk copy of no multiple of 16 bytes");
    if (shim::self().asynchronous.unfenced_barriers) {
        shim::fail_in_thread("a bulk copy, without mbarrier_fence_init");
    }
    shim::check_writable(to, bytes);
    from.check(i, bytes / 16);
    shim::barrier_at(at);
    const void* source = from.data + i;
    shim::check_aligned(source);
    shim::poison(shim::generic(to), bytes);
    shim::poison(shim::async(to), bytes);
    shim::schedule([=] {
        std::memcpy(shim::generic(to), source, bytes);
        std::memcpy(shim::async(to), source, bytes);
        shim::MemoryBarrier& barrier = shim::barrier_at(at);
        barrier.bytes -= bytes;
        shim::end_phase_if_done(barrier);
    });
}

inline void bulk_store(Global<uint4> to, int64_t i, Address from, int bytes) {
    if (bytes <= 0 || bytes % 16) shim::fail_in_thread("a bulk copy of no multiple of 16 bytes");
    shim::check_pieces(from, bytes);
    to.check(i, bytes / 16);
    void* target = to.data + i;
    shim::check_aligned(target);
    shim::at_some_time(shim::self().asynchronous.stores, [=] {
        std::memcpy(target, shim::async(from), bytes);
    });
}

inline void bulk_commit() {
    auto& asynchronous = shim::self().asynchronous;
    asynchronous.groups.push_back(std::move(asynchronous.stores));
    asynchronous.stores.clear();
}

template <int PENDING>
void bulk_wait_read() {
    // One in four takes long, so that other threads get rows ahead.
    for (int turns = shim::random_below(4) ? 1 : 2048; turns; --turns) shim::yield();
    auto& groups = shim::self().asynchronous.groups;
    for (; groups.size() > PENDING; groups.pop_front()) {
        for (const auto& store : groups.front()) store();
    }
}

}  // namespace espan
