// State of asynchronous work in the host build: warpgroup products, bulk copies, and the two views
// of shared memory.
#pragma once

#include <array>
#include <deque>
#include <functional>
#include <map>
#include <vector>

#include "cuda.h"

namespace espan::shim {

struct Fiber;

struct MemoryBarrier {
    int expected, arrived, bytes;  // bytes: still pending
    uint32_t phase;
    std::vector<Fiber*> waiting;
};

// Shared memory as seen by the generic proxy and by the async proxy.
struct Bytes {
    std::vector<uint8_t> generic, async;
    std::map<uint32_t, MemoryBarrier> barriers;
    // Descriptors and number of sums of each wgmma, by (warpgroup, index of the wgmma).
    std::map<std::pair<int, int>, std::array<uint64_t, 3>> issued;
};

// A thread's asynchronous state.
struct Asynchronous {
    std::vector<uint32_t> unfenced;  // addresses of 16 bytes, not yet visible to the async proxy
    bool unfenced_barriers = false;
    std::vector<std::function<void()>> stores;  // bulk stores since the last commit
    std::deque<std::vector<std::function<void()>>> groups;
};

// A warp's accumulators in flight: their locations, lane by lane, and their current values.
struct Sums {
    std::vector<float*> registers;
    int count;  // per lane
    std::vector<float> values;
    bool is_committed;
};

// A warp's asynchronous products.
struct Products {
    bool is_fenced = false;
    std::vector<Sums> sums;
    std::vector<std::function<void()>> open;  // deferred products since the last commit
    std::deque<std::vector<std::function<void()>>> groups;
    int issued = 0, registers = 0;
};

}  // namespace espan::shim
