// In which order the blocks of dct_l1.cu work, and how they wait for each other.
//
// Strips go through three passes in groups. Blocks take items, a part of a pass over a group, by
// ticket. Tickets are numbered in rounds: in round r the first pass works on group r, the second on
// group r - lag, the third on group r - 2 lag. An item needs the pass before it to be through with
// its group, and the first pass a slot of the ring in memory that the last pass has left. Both have
// lower tickets, and who holds a lower ticket waits for none that is higher: no deadlock, however
// many blocks run at once. `lag` is so large that waits are rare.
#pragma once

#include "common/ptx.cuh"

namespace espan::dct {

#ifdef ESPAN_SHIM
// Blocks run one after another there, so whatever an item waits for must be there already.
inline unsigned take_ticket(Global<unsigned> counts) {
    const unsigned ticket = counts.load(0);
    counts.store(0, ticket + 1);
    return ticket;
}
inline void add_done(Global<unsigned> counts, int64_t i) { counts.store(i, counts.load(i) + 1); }
inline void wait_until(Global<unsigned> counts, int64_t i, unsigned count) {
    if (counts.load(i) != count) shim::fail_in_thread("waits for a pass that is not through");
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
// After a barrier of the block: others see what the block has stored.
__device__ inline void add_done(Global<unsigned> counts, int64_t i) {
    __threadfence();
    atomicAdd(counts.data + i, 1);
}
// Before a barrier of the block.
__device__ inline void wait_until(Global<unsigned> counts, int64_t i, unsigned count) {
    unsigned done;
    do {
        asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
                     : "=r"(done)
                     : "l"(counts.data + i)
                     : "memory");
    } while (done < count);
}
// What other blocks have stored: from L2, as L1 may hold what was there before.
__device__ inline float load_l2(Global<float> from, int i) { return __ldcg(from.data + i); }
// Volatile, so that no register holds it in between.
__device__ inline int load_again(Shared<int> from, int i) {
    return static_cast<const volatile int*>(from.data)[i];
}
// What nobody reads again leaves L2 first.
template <typename T>
__device__ T load_once(Global<const T> from, int i) {
    return __ldcs(from.data + i);
}
template <typename T>
__device__ void store_once(Global<T> to, int i, T value) {
    __stcs(to.data + i, value);
}
// `count` elements from `first` on, which 32-bit numbers can index.
template <typename T>
__device__ Global<T> view(Global<T> memory, int64_t first, int64_t count) {
    return {memory.data + first, count};
}
#endif

// A task: an item of a pass over a group. A round has tickets for passes without a group.
struct Task {
    int pass, block, group, slot;
    static constexpr int NOTHING = -1, END = 3;  // instead of a pass
};

struct Order {
    int groups;
    int across, down;  // items of the first and third pass over a group, and of the second
    int passes;        // 3, or 2 without a gradient
    int lag, ring;     // rounds from pass to pass; groups that memory holds
    int items;         // of a round
    unsigned tickets;

    // Of a group: a quarter of what the blocks that run at once have in shared memory, or so.
    static constexpr int64_t NUMBERS = 1 << 18;
    // More items than a device runs at once: 2 blocks on each of up to 160 multiprocessors.
    static constexpr int RUNNING = 320;

    Order(int groups, int across, int down, int passes)
        : groups(groups), across(across), down(down), passes(passes) {
        items = across * (passes - 1) + down;
        lag = ceil_div(RUNNING, items);
        ring = int(groups < passes * lag ? groups : passes * lag);
        tickets = unsigned((groups + (passes - 1) * lag) * items);
    }
    // A number for the next ticket and one for each pass over each group.
    static int64_t counts(int64_t groups) { return 1 + 3 * groups; }

    // The next task, when all is there that it needs.
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
