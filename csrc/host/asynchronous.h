// What the host build knows of work that goes on while threads do: products of warpgroups, bulk
// copies, and the two views of shared memory.
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
    int expected, arrived, bytes;  // bytes that are still to come
    uint32_t phase;
    std::vector<Fiber*> waiting;
};

// Shared memory as the generic proxy sees it and as the async proxy does.
struct Bytes {
    std::vector<uint8_t> generic, async;
    std::map<uint32_t, MemoryBarrier> barriers;
    // {(warpgroup, how many before it): a wgmma}: descriptors and the number of sums.
    std::map<std::pair<int, int>, std::array<uint64_t, 3>> issued;
};

// A thread's.
struct Asynchronous {
    std::vector<uint32_t> unfenced;  // 16 bytes each, not yet seen by the async proxy
    bool unfenced_barriers = false;
    std::vector<std::function<void()>> stores;  // bulk, since the last commit
    std::deque<std::vector<std::function<void()>>> groups;
};

// The open sums of a warp that are in flight: where they are, a lane after the other, and what they
// are so far.
struct Sums {
    std::vector<float*> registers;
    int count;  // of a lane
    std::vector<float> values;
    bool is_committed;
};

// A warp's.
struct Products {
    bool is_fenced = false;
    std::vector<Sums> sums;
    std::vector<std::function<void()>> open;  // products since the last commit that are still due
    std::deque<std::vector<std::function<void()>>> groups;
    int issued = 0, registers = 0;
};

}  // namespace espan::shim
