// Bounds-checked Global and Shared memory of the host build.
#pragma once

#include "fibers.h"

namespace espan {
namespace shim {

inline void check(const char* memory, int64_t i, int64_t count, int64_t size) {
    if (i < 0 || i + count > size) {
        fail_in_thread(std::string(memory) + "[" + std::to_string(i) + "] of " +
                       std::to_string(size));
    }
}

inline void check_aligned(const void* address) {
    if (reinterpret_cast<uintptr_t>(address) % 16) fail_in_thread("16 bytes, not aligned to 16");
}

}  // namespace shim

template <typename T>
struct Global {
    T* data;
    int64_t size;
    bool constant = false;  // not written by any kernel in flight

    Global(T* data, int64_t size) : data(data), size(size) {}

    void check(int64_t i, int64_t count) const {
        shim::check("global", i, count, size);
        if (!constant && shim::state().overlaps && !shim::self().has_waited) {
            shim::fail_in_thread("global memory before wait_for_earlier_kernels");
        }
    }
    T load(int64_t i) const {
        check(i, 1);
        return data[i];
    }
    uint4 load16(int64_t i) const {
        check(i, 16 / sizeof(T));
        shim::check_aligned(data + i);
        uint4 value;
        std::memcpy(&value, data + i, 16);
        return value;
    }
    void store(int64_t i, T value) const {
        check(i, 1);
        data[i] = value;
    }
    void store16(int64_t i, uint4 value) const {
        check(i, 16 / sizeof(T));
        shim::check_aligned(data + i);
        std::memcpy(data + i, &value, 16);
    }
    template <typename U>
    Global<U> as() const {
        return {reinterpret_cast<U*>(data), int64_t(size * sizeof(T) / sizeof(U))};
    }
};

template <typename T>
struct Constant : Global<T> {
    Constant(T* data, int64_t size) : Global<T>(data, size) { this->constant = true; }
    Constant from(int64_t i) const { return {this->data + i, this->size - i}; }
};

template <typename T>
struct Shared {
    T* data;
    int size;

    T load(int i) const {
        shim::check("shared", i, 1, size);
        return data[i];
    }
    void store(int i, T value) const {
        shim::check("shared", i, 1, size);
        data[i] = value;
    }
    template <typename U>
    Shared<U> as() const {
        return {reinterpret_cast<U*>(data), int(size * sizeof(T) / sizeof(U))};
    }
};

namespace shim {

// Bytes that are NaN in every float type.
inline void poison(void* memory, size_t bytes) { std::memset(memory, 0xff, bytes); }

// The shared array that all threads of a block declare in the same order; the first allocates it.
template <typename T>
Shared<T> shared(int size) {
    auto& arrays = state().arrays;
    const size_t i = self().arrays++;
    if (i == arrays.size()) {
        arrays.emplace_back((size * sizeof(T) + 15) / 16);
        poison(arrays[i].data(), 16 * arrays[i].size());
    }
    return {reinterpret_cast<T*>(arrays[i].data()), size};
}

// The array in dynamic shared memory, checked against the size passed to the launch.
template <typename T>
Shared<T> dynamic_shared(int size) {
    check("dynamic shared memory, byte ", 0, int64_t(size) * sizeof(T), state().dynamic_bytes);
    return shared<T>(size);
}

}  // namespace shim

#define DYNAMIC_SHARED(T, name, size) \
    const espan::Shared<T> name = espan::shim::dynamic_shared<T>(size)
#define SHARED(T, name, size) const espan::Shared<T> name = espan::shim::shared<T>(size)

template <typename... Parameters, typename... Arguments>
cudaError_t launch(
    void (*kernel)(Parameters...), int64_t blocks, int threads, cudaStream_t,
    Arguments... arguments) {
    return shim::run(blocks, threads, 0, false, [=] { kernel(arguments...); });
}

template <typename... Parameters, typename... Arguments>
cudaError_t launch_with_shared(
    void (*kernel)(Parameters...), int64_t blocks, int threads, int bytes, int max_bytes,
    cudaStream_t, Arguments... arguments) {
    if (bytes > max_bytes) return cudaErrorInvalidValue;
    return shim::run(blocks, threads, bytes, false, [=] { kernel(arguments...); });
}

}  // namespace espan
