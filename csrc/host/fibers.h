// A block's threads as fibers of one CPU thread, with barriers and warp-wide operations.
//
// A fiber runs until it waits or yields; a seeded random choice picks the next one. A chosen warp
// runs for a while, so that warps drift as far apart as barriers allow.
#pragma once

#include <ucontext.h>

#include <array>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "asynchronous.h"

namespace espan::shim {

constexpr int LANES = 32;
constexpr size_t STACK = 64 << 10;
// The average number of thread switches within a chosen warp.
constexpr int PATIENCE = 512;
// One in HASTE thread switches performs a bulk copy; one in SLOW copies is deferred to the end.
constexpr int HASTE = 256, SLOW = 4;

struct Copy {
    uint32_t* to;
    const uint32_t* from;  // null: zeros
};

struct Fiber {
    Index thread;
    ucontext_t context;
    std::unique_ptr<char[]> stack{new char[STACK]};
    const char* waits;               // what the fiber waits for; null: ready to run
    int arrays;                      // number of shared arrays declared so far
    std::vector<Copy> copies;        // since the last commit
    std::deque<std::vector<Copy>> groups;
    bool has_waited;                 // for earlier kernels
    Asynchronous asynchronous;
};

struct Warp {
    std::vector<Fiber*> ready;
    const char* operation;                // of the waiting lanes
    int arrived;
    std::array<void*, LANES> arguments;   // of the waiting lanes
    Products products;
};

struct Barrier {
    int expected, arrived;
    std::vector<Fiber*> waiting;
};

struct Block {
    Index index, grid;
    int dynamic_bytes;  // of shared memory
    bool overlaps;      // the previous kernel may still run
    std::function<void()> kernel;
    ucontext_t scheduler;
    std::vector<std::unique_ptr<Fiber>> fibers;
    std::vector<Warp> warps;
    std::array<Barrier, 16> barriers;
    std::vector<std::vector<uint4>> arrays;  // in shared memory
    Bytes bytes;                             // shared memory as addressed by sm_90a kernels
    // Events that may happen at any time, and events that happen only when no thread can run.
    std::vector<std::function<void()>> later, last;
    Fiber* current;
    int running;
    bool failed;
};

inline Block& state() {
    static Block block;
    return block;
}

inline Fiber& self() { return *state().current; }
inline Index block() { return state().index; }
inline Index grid() { return state().grid; }

inline uint64_t random_below(uint64_t limit) {
    uint64_t& x = random_state();
    x ^= x << 13;
    x ^= x >> 7;
    x ^= x << 17;
    return (x >> 11) % limit;
}

inline void make_ready(Fiber& fiber) {
    fiber.waits = nullptr;
    state().warps[fiber.thread.x / LANES].ready.push_back(&fiber);
}

inline void leave() {
    Fiber& fiber = self();
    swapcontext(&fiber.context, &state().scheduler);
}

inline void wait(const char* what) {
    self().waits = what;
    leave();
}

inline void yield() {
    make_ready(self());
    leave();
}

// Aborts the launch. No fiber runs again, so this does not return.
[[noreturn]] inline void fail(const std::string& message) {
    failure() = message;
    state().failed = true;
    for (;;) leave();
}

inline void fail_in_thread(const std::string& message) {
    fail("block " + std::to_string(block().x) + ", thread " + std::to_string(self().thread.x) +
         ": " + message);
}

// Waits for all lanes of the warp; the last one calls run with the arguments of all lanes.
template <typename Arguments, typename Run>
void collective(const char* name, Arguments& arguments, Run run) {
    const int lane = self().thread.x % LANES;
    Warp& warp = state().warps[self().thread.x / LANES];
    if (warp.arrived && warp.operation != name) {
        fail_in_thread(std::string("comes to ") + name + ", other lanes to " + warp.operation);
    }
    warp.operation = name;
    warp.arguments[lane] = &arguments;
    if (++warp.arrived < LANES) {
        wait(name);
        return;
    }
    warp.arrived = 0;
    run([&warp](int i) -> Arguments& { return *static_cast<Arguments*>(warp.arguments[i]); });
    const int first = self().thread.x - lane;
    for (int i = 0; i < LANES; ++i) {
        if (i != lane) make_ready(*state().fibers[first + i]);
    }
}

inline void arrive_at_barrier(int id, int threads, bool waits) {
    if (id < 0 || id >= 16 || threads <= 0 || threads % LANES) {
        fail_in_thread("barrier " + std::to_string(id) + " of " + std::to_string(threads));
    }
    Barrier& barrier = state().barriers[id];
    if (barrier.arrived && barrier.expected != threads) {
        fail_in_thread("barrier " + std::to_string(id) + " is of " +
                       std::to_string(barrier.expected) + ", not " + std::to_string(threads));
    }
    barrier.expected = threads;
    if (++barrier.arrived == threads) {
        barrier.arrived = 0;
        for (Fiber* fiber : barrier.waiting) make_ready(*fiber);
        barrier.waiting.clear();
        yield();
    } else if (waits) {
        barrier.waiting.push_back(&self());
        wait("a barrier");
    } else {
        yield();
    }
}

inline void enter() {
    state().kernel();
    --state().running;
    wait("nothing, it has returned");
}

inline void schedule(std::function<void()> event) {
    auto& events = random_below(SLOW) ? state().later : state().last;
    events.push_back(std::move(event));
}

// Runs a random pending event, or a deferred one if none is pending.
inline void run_event() {
    auto& events = state().later.empty() ? state().last : state().later;
    std::swap(events[random_below(events.size())], events.back());
    const auto event = std::move(events.back());
    events.pop_back();
    event();
}

// The next fiber to run, or null.
inline Fiber* choose(Warp*& favourite) {
    if (!state().later.empty() && !random_below(HASTE)) run_event();
    if (!favourite || favourite->ready.empty() || !random_below(PATIENCE)) {
        std::vector<Warp*> able;
        for (Warp& warp : state().warps) {
            if (!warp.ready.empty()) able.push_back(&warp);
        }
        if (able.empty() && state().later.empty() && state().last.empty()) return nullptr;
        if (able.empty()) {
            run_event();
            return state().failed ? nullptr : choose(favourite);
        }
        favourite = able[random_below(able.size())];
    }
    auto& ready = favourite->ready;
    std::swap(ready[random_below(ready.size())], ready.back());
    Fiber* fiber = ready.back();
    ready.pop_back();
    return fiber;
}

// Checks that all asynchronous work has ended with the block. Defined in warpgroup.h.
inline void check_asynchronous();

inline void check_end() {
    Block& block = state();
    if (block.running) {
        for (auto& fiber : block.fibers) {
            if (std::strcmp(fiber->waits, "nothing, it has returned")) {
                failure() = "deadlock in block " + std::to_string(block.index.x) + ": thread " +
                            std::to_string(fiber->thread.x) + " waits for " + fiber->waits;
            }
        }
        block.failed = true;
    }
    if (!block.failed) check_asynchronous();
    for (size_t id = 0; id < block.barriers.size() && !block.failed; ++id) {
        if (block.barriers[id].arrived) {
            failure() = "a block ended with threads come to barrier " + std::to_string(id);
            block.failed = true;
        }
    }
}

inline void run_block(Index index, int threads) {
    Block& block = state();
    block.index = index;
    block.warps.assign((threads + LANES - 1) / LANES, {});
    block.barriers.fill({});
    block.arrays.clear();
    block.bytes = {};
    block.later.clear();
    block.last.clear();
    block.running = threads;
    block.failed = false;
    while (block.fibers.size() < size_t(threads)) {
        block.fibers.push_back(std::make_unique<Fiber>());
    }
    block.fibers.resize(threads);
    for (int i = 0; i < threads; ++i) {
        Fiber& fiber = *block.fibers[i];
        fiber.thread.x = i;
        fiber.arrays = 0;
        fiber.copies.clear();
        fiber.groups.clear();
        fiber.has_waited = false;
        fiber.asynchronous = {};
        getcontext(&fiber.context);
        fiber.context.uc_stack.ss_sp = fiber.stack.get();
        fiber.context.uc_stack.ss_size = STACK;
        fiber.context.uc_link = nullptr;
        makecontext(&fiber.context, enter, 0);
        make_ready(fiber);
    }
    Warp* favourite = nullptr;
    while (!block.failed && (block.current = choose(favourite))) {
        swapcontext(&block.scheduler, &block.current->context);
    }
    if (!block.failed) check_end();
}

// overlaps: the kernel may start before the previous one has ended.
inline cudaError_t run(
    int64_t blocks, int threads, int dynamic_bytes, bool overlaps, std::function<void()> kernel) {
    static std::mutex one_at_a_time;
    const std::lock_guard<std::mutex> lock(one_at_a_time);
    if (blocks <= 0 || threads <= 0 || threads > 1024) return cudaErrorInvalidConfiguration;
    state().kernel = std::move(kernel);
    state().dynamic_bytes = dynamic_bytes;
    state().overlaps = overlaps;
    state().grid.x = static_cast<unsigned>(blocks);
    const int64_t first = last_blocks() ? std::max<int64_t>(0, blocks - last_blocks()) : 0;
    for (auto i = unsigned(first); i < blocks; ++i) {
        run_block({i}, threads);
        if (state().failed) return cudaErrorIllegalAddress;
    }
    return cudaSuccess;
}

}  // namespace espan::shim
