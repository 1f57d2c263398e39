// The launchers as the Python module _cuda: pointers and the stream are integers, the GIL is
// released, and what comes back is the cudaError_t.
#include <pybind11/pybind11.h>

#include <string>

#include "launchers.h"

namespace {

using Address = uintptr_t;

const void* in(Address address) { return reinterpret_cast<const void*>(address); }
void* out(Address address) { return reinterpret_cast<void*>(address); }
cudaStream_t queue(Address address) { return reinterpret_cast<cudaStream_t>(address); }

}  // namespace

PYBIND11_MODULE(_cuda, module) {
    namespace py = pybind11;
    using espan::Dtype;
    using espan::Epilogue;
    using espan::Layout;
    const auto unlocked = py::call_guard<py::gil_scoped_release>();

    // Of the sources it was built from; the loader compares it with those beside the package.
    module.attr("SOURCE_HASH") = ESPAN_SOURCE_HASH;
#ifdef ESPAN_SHIM
    module.attr("DEVICE") = "cpu";
    module.def("seed", &espan::shim::seed);
    module.def("run_last_blocks", &espan::shim::run_last_blocks);
#else
    module.attr("DEVICE") = "cuda";
#endif
    module.attr("OUT_OF_MEMORY") = static_cast<int>(cudaErrorMemoryAllocation);

    py::enum_<Dtype>(module, "Dtype", py::module_local())
        .value("float16", Dtype::float16)
        .value("bfloat16", Dtype::bfloat16)
        .value("float32", Dtype::float32)
        .value("uint8", Dtype::uint8);

    py::enum_<Layout>(module, "Layout", py::module_local())
        .value("planes", Layout::planes)
        .value("channels_last", Layout::channels_last)
        .value("contiguous", Layout::contiguous);

    py::enum_<Epilogue>(module, "Epilogue", py::module_local())
        .value("none", Epilogue::none)
        .value("silu", Epilogue::silu)
        .value("gate", Epilogue::gate);

    module.def("describe", [](int error) {
        const auto code = static_cast<cudaError_t>(error);
        return std::string(cudaGetErrorName(code)) + ": " + cudaGetErrorString(code);
    });
    module.def(
        "span_gate",
        [](Address x, Address y, Address to, int64_t size, Dtype dtype, Address stream) {
            return int(espan::span_gate(in(x), in(y), out(to), size, dtype, queue(stream)));
        },
        unlocked);
    module.def(
        "span_gate_backward",
        [](Address grad, Address x, Address y, Address dx, Address dy, int64_t size, Dtype dtype,
           Address stream) {
            return int(espan::span_gate_backward(
                in(grad), in(x), in(y), out(dx), out(dy), size, dtype, queue(stream)));
        },
        unlocked);
    module.def(
        "spab",
        [](Address x, Address weights, Address biases, Address scratch, Address to, int convs,
           int channels, int64_t n, int64_t h, int64_t w, Layout layout, bool half_sums,
           Address stream) {
            return int(espan::spab(
                in(x), in(weights), in(biases), out(scratch), out(to), convs, channels, n, h, w,
                layout, half_sums, queue(stream)));
        },
        unlocked);
    module.def(
        "conv3x3",
        [](Address x, Address weights, Address biases, Address gate, Address to, Epilogue epilogue,
           int channels, int64_t n, int64_t h, int64_t w, Layout layout, bool half_sums,
           Address stream) {
            return int(espan::conv3x3(
                in(x), in(weights), in(biases), in(gate), out(to), epilogue, channels, n, h, w,
                layout, half_sums, queue(stream)));
        },
        unlocked);
    module.def(
        "conv9x9_head",
        [](Address x, Address weights, Address biases, Address to, Dtype dtype, int64_t n,
           int64_t h, int64_t w, Layout x_layout, Layout layout, Address stream) {
            return int(espan::conv9x9_head(
                in(x), in(weights), in(biases), out(to), dtype, n, h, w, x_layout, layout,
                queue(stream)));
        },
        unlocked);
    module.def(
        "tail",
        [](Address x, Address single0, Address single1, Address single2, Address weights,
           Address single_weights, Address up_weights, Address biases, Address to, int singles,
           int scale, bool clamp, Dtype dtype, int64_t n, int64_t h, int64_t w, Layout layout,
           Layout out_layout, Address stream) {
            return int(espan::tail(
                in(x), in(single0), in(single1), in(single2), in(weights), in(single_weights),
                in(up_weights), in(biases), out(to), singles, scale, clamp, dtype, n, h, w, layout,
                out_layout, queue(stream)));
        },
        unlocked);
    module.def("dct_l1_scratch", [](int64_t strips, int64_t h, int64_t w, int64_t block_w) {
        const auto scratch = espan::dct_l1_scratch(strips, h, w, block_w);
        return py::make_tuple(scratch.between, scratch.partial);
    });
    module.def(
        "dct_l1",
        [](Address a, Address b, Address across, Address down, Address between, Address partial,
           Address gradient, int64_t strips, int64_t h, int64_t w, int64_t block_w, float scale,
           Dtype dtype, Address stream) {
            return int(espan::dct_l1(
                in(a), in(b), in(across), in(down), out(between), out(partial), out(gradient),
                strips, h, w, block_w, scale, dtype, queue(stream)));
        },
        unlocked);
}
