// The order in which the thread blocks of dct_l1.cu work, and how they wait for each other.
//
// Groups of strips go through three passes. An item is a part of one pass over one group; blocks
// take items in the order of their tickets. Tickets are numbered in rounds: in round r the first
// pass works on group r, the second on group r - lag, the third on group r - 2 lag. An item waits
// until the previous pass over its group is complete; in the first pass, until the last pass over
// the group that had its slot of the ring buffer is. All of these have lower tickets.
//
// There is no deadlock, however few blocks run at once: only a running block holds a ticket, and it
// finishes its item before it takes the next one. So the lowest unfinished ticket never waits.
// `lag` is so large that waits are rare.
//
// Memory order: a barrier orders a block's accesses before the release in add_done, and the
// acquire in wait_until before the accesses of the next item. The counts are 0 before each launch,
// and no other launch uses them.
#pragma once

#include "common/ptx.cuh"

namespace espan::dct {

#ifdef ESPAN_SHIM
// Blocks run one after another, so whatever an item waits for must be complete already.
inline unsigned take_ticket(Global<unsigned> counts) {
    const unsigned ticket = counts.load(0);
    counts.store(0, ticket + 1);
    return ticket;
}
inline void add_done(Global<unsigned> counts, int64_t i) { counts.store(i, counts.load(i) + 1); }
inline void wait_until(Global<unsigned> counts, int64_t i, unsigned count) {
    if (counts.load(i) != count) shim::fail_in_thread("waits for an incomplete pass");
}
inline float load_l2(Global<float> from, int i) { return from.load(i); }
inline int load_again(Shared<int> from, int i) { return from.load(i); }
template <typename T>
T load_once(Global<const T> from, int i) {
    return from.load(i);
}
template <typename T>
void store_once(Global<T> to, int i, T value) {
    to.store(i, value);
}
template <typename T>
Global<T> view(Global<T> memory, int64_t first, int64_t count) {
    shim::check("global", first, count, memory.size);
    return {memory.data + first, count};
}
#else
__device__ inline unsigned take_ticket(Global<unsigned> counts) {
    return atomicAdd(counts.data, 1);
}
// Called by one thread after a barrier of its block.
__device__ inline void add_done(Global<unsigned> counts, int64_t i) {
    asm volatile("fence.acq_rel.gpu;\n\tred.relaxed.gpu.global.add.u32 [%0], 1;"
                 :
                 : "l"(counts.data + i)
                 : "memory");
}
// Called by one thread before a barrier of its block. An acquire empties L1: hence the pauses.
__device__ inline void wait_until(Global<unsigned> counts, int64_t i, unsigned count) {
    for (;;) {
        unsigned done;
        asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
                     : "=r"(done)
                     : "l"(counts.data + i)
                     : "memory");
        if (done >= count) return;
        __nanosleep(64);
    }
}
// What other blocks have stored: from L2, as L1 may hold older values.
__device__ inline float load_l2(Global<float> from, int i) { return __ldcg(from.data + i); }
// Volatile, so that the compiler rereads it instead of keeping it in a register.
__device__ inline int load_again(Shared<int> from, int i) {
    return static_cast<const volatile int*>(from.data)[i];
}
// Data that is not read again: evicted first from L2.
template <typename T>
__device__ T load_once(Global<const T> from, int i) {
    return __ldcs(from.data + i);
}
template <typename T>
__device__ void store_once(Global<T> to, int i, T value) {
    __stcs(to.data + i, value);
}
// `count` elements starting at `first`; 32-bit integers can index them.
template <typename T>
__device__ Global<T> view(Global<T> memory, int64_t first, int64_t count) {
    return {memory.data + first, count};
}
#endif

// An item of a pass over a group. NOTHING: the first and last rounds have tickets without a group.
struct Task {
    int pass, block, group, slot;
    static constexpr int NOTHING = -1, END = 3;  // instead of a pass
};

struct Order {
    int groups;
    int across, down;  // items per group of the first and third pass, and of the second
    int passes;        // 3, or 2 without a gradient
    int lag, ring;     // rounds between passes; groups in the ring buffer
    int items;         // per round
    unsigned tickets;

    // Per group: about a quarter of what all running blocks hold in shared memory.
    static constexpr int64_t NUMBERS = 1 << 18;
    // Items that run at once, at most: 2 blocks on each of up to 160 multiprocessors.
    static constexpr int RUNNING = 320;

    Order(int groups, int across, int down, int passes)
        : groups(groups), across(across), down(down), passes(passes) {
        items = across * (passes - 1) + down;
        lag = ceil_div(RUNNING, items);
        ring = int(groups < passes * lag ? groups : passes * lag);
        tickets = unsigned((groups + (passes - 1) * lag) * items);
    }
    // One for the next ticket and one for each pass over each group.
    static int64_t counts(int64_t groups) { return 1 + 3 * groups; }

    // Takes the next ticket, and waits for all that its item needs.
    __device__ Task take(Global<unsigned> counts) const {
        const unsigned ticket = take_ticket(counts);
        if (ticket >= tickets) return {Task::END, 0, 0, 0};
        const int round = int(ticket) / items, rest = int(ticket) - round * items;
        const int pass = rest < across ? 0 : rest < across + down ? 1 : 2;
        const int group = round - pass * lag;
        if (group < 0 || group >= groups) return {Task::NOTHING, 0, 0, 0};
        if (pass > 0) {
            wait_until(counts, at(pass - 1, group), pass == 1 ? across : down);
        } else if (group >= ring) {
            wait_until(counts, at(passes - 1, group - ring), passes == 3 ? across : down);
        }
        const int block = rest - (pass == 0 ? 0 : pass == 1 ? across : across + down);
        return {pass, block, group, group % ring};
    }
    __device__ void done(Global<unsigned> counts, int pass, int group) const {
        if (pass != Task::NOTHING) add_done(counts, at(pass, group));
    }

private:
    __device__ static int64_t at(int pass, int group) { return 1 + 3 * int64_t(group) + pass; }
};

}  // namespace espan::dct
