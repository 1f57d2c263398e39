// Shared by emulation.cpp and emulation_products.cpp.
#pragma once

#include <map>
#include <string>

#include "wgmma/instructions.cuh"

using namespace espan;

// Bytes of shared memory.
constexpr int BYTES = 32 << 10;

struct Case {
    int threads;
    void (*kernel)();
    bool overlaps = false;
};
using Cases = std::map<std::string, Case>;

// Defined in emulation_products.cpp.
Cases cases_of_products();

inline void expect(bool is_right, const char* what) {
    if (!is_right) shim::fail_in_thread(what);
}
