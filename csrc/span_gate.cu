// span_gate, forward and backward: elementwise kernels, 16 bytes per thread.
//
// With t = tanh(y / 2), sigmoid(y) - 1/2 = t / 2, and its derivative is (1 - t^2) / 4.
#include "common/ptx.cuh"

namespace espan {
namespace {

constexpr int THREADS = 256;

template <typename T>
constexpr int VECTOR = 16 / sizeof(T);

template <typename T>
struct alignas(16) Vector {
    T item[VECTOR<T>];
};

// The error of tanh.approx is below the rounding of float16 and bfloat16, but not of float32.
template <typename T>
__device__ float tanh_for(float x) {
    if constexpr (sizeof(T) == sizeof(float)) {
        return tanhf(x);
    } else {
        return tanh_approx(x);
    }
}

template <typename T>
__device__ void forward(T x, T y, T& out) {
    const float wide = to_float(y);
    from_float(out, (wide + to_float(x)) * (0.5f * tanh_for<T>(0.5f * wide)));
}

template <typename T>
__device__ void backward(T grad, T x, T y, T& dx, T& dy) {
    const float wide = to_float(y);
    const float g = to_float(grad);
    const float t = tanh_for<T>(0.5f * wide);
    from_float(dx, g * (0.5f * t));
    from_float(dy, g * (0.5f * t + (wide + to_float(x)) * (0.25f * (1 - t * t))));
}

template <typename T>
__device__ Vector<T> load_vector(Global<const T> from, int64_t i) {
    const uint4 bits = from.load16(i);
    Vector<T> vector;
    memcpy(&vector, &bits, sizeof(bits));
    return vector;
}

template <typename T>
__device__ void store_vector(Global<T> to, int64_t i, const Vector<T>& vector) {
    uint4 bits;
    memcpy(&bits, &vector, sizeof(bits));
    to.store16(i, bits);
}

template <typename T>
__global__ void __launch_bounds__(THREADS) forward_kernel(
    Global<const T> x, Global<const T> y, Global<T> out, int64_t size) {
    const int64_t first = (int64_t(blockIdx.x) * THREADS + threadIdx.x) * VECTOR<T>;
    if (first + VECTOR<T> <= size) {
        const Vector<T> a = load_vector(x, first), b = load_vector(y, first);
        Vector<T> result;
        for (int j = 0; j < VECTOR<T>; ++j) forward(a.item[j], b.item[j], result.item[j]);
        store_vector(out, first, result);
    } else {
        for (int64_t i = first; i < size; ++i) {
            T result;
            forward(x.load(i), y.load(i), result);
            out.store(i, result);
        }
    }
}

template <typename T>
__global__ void __launch_bounds__(THREADS) backward_kernel(
    Global<const T> grad, Global<const T> x, Global<const T> y, Global<T> dx, Global<T> dy,
    int64_t size) {
    const int64_t first = (int64_t(blockIdx.x) * THREADS + threadIdx.x) * VECTOR<T>;
    if (first + VECTOR<T> <= size) {
        const Vector<T> g = load_vector(grad, first);
        const Vector<T> a = load_vector(x, first), b = load_vector(y, first);
        Vector<T> da, db;
        for (int j = 0; j < VECTOR<T>; ++j) {
            backward(g.item[j], a.item[j], b.item[j], da.item[j], db.item[j]);
        }
        store_vector(dx, first, da);
        store_vector(dy, first, db);
    } else {
        for (int64_t i = first; i < size; ++i) {
            T da, db;
            backward(grad.load(i), x.load(i), y.load(i), da, db);
            dx.store(i, da);
            dy.store(i, db);
        }
    }
}

template <typename T>
int64_t blocks(int64_t size) {
    return ceil_div(size, int64_t(THREADS) * VECTOR<T>);
}

}  // namespace

cudaError_t span_gate(const SpanGateParams& p, cudaStream_t stream) {
    return with_type(p.dtype, [&](auto zero) {
        using T = decltype(zero);
        if (blocks<T>(p.size) > MAX_BLOCKS) return cudaErrorInvalidValue;
        return launch(
            forward_kernel<T>, blocks<T>(p.size), THREADS, stream,
            Global<const T>(static_cast<const T*>(p.x), p.size),
            Global<const T>(static_cast<const T*>(p.y), p.size),
            Global<T>(static_cast<T*>(p.out), p.size), p.size);
    });
}

cudaError_t span_gate_backward(const SpanGateBackwardParams& p, cudaStream_t stream) {
    return with_type(p.dtype, [&](auto zero) {
        using T = decltype(zero);
        if (blocks<T>(p.size) > MAX_BLOCKS) return cudaErrorInvalidValue;
        return launch(
            backward_kernel<T>, blocks<T>(p.size), THREADS, stream,
            Global<const T>(static_cast<const T*>(p.grad), p.size),
            Global<const T>(static_cast<const T*>(p.x), p.size),
            Global<const T>(static_cast<const T*>(p.y), p.size),
            Global<T>(static_cast<T*>(p.dx), p.size), Global<T>(static_cast<T*>(p.dy), p.size),
            p.size);
    });
}

}  // namespace espan
