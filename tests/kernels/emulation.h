// What the cases of emulation.cpp and emulation_products.cpp have in common.
#pragma once

#include <map>
#include <string>

#include "wgmma/instructions.cuh"

using namespace espan;

// Of shared memory.
constexpr int BYTES = 32 << 10;

struct Case {
    int threads;
    void (*kernel)();
    bool overlaps = false;
};
using Cases = std::map<std::string, Case>;

// In emulation_products.cpp.
Cases cases_of_products();

inline void expect(bool is_right, const char* what) {
    if (!is_right) shim::fail_in_thread(what);
}
