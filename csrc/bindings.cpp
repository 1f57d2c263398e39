// The launchers as the Python module _cuda. A launcher's keyword arguments have the names of its
// parameter struct's fields: addresses and the stream as integers (None: null), dtypes, layouts and
// epilogues as strings. It releases the GIL and returns the cudaError_t.
#include <pybind11/pybind11.h>

#include <map>
#include <string>
#include <tuple>
#include <type_traits>

#include "launchers.h"

namespace {

namespace py = pybind11;
using namespace espan;

template <typename Enum>
using Names = std::map<std::string, Enum>;

// The Python names of the enum values.
const std::tuple<Names<Dtype>, Names<Layout>, Names<Epilogue>> NAMES{
    {{"float16", Dtype::float16},
     {"bfloat16", Dtype::bfloat16},
     {"float32", Dtype::float32},
     {"uint8", Dtype::uint8}},
    {{"nc8hw8", Layout::nc8hw8},
     {"channels_last", Layout::channels_last},
     {"contiguous", Layout::contiguous}},
    {{"none", Epilogue::none}, {"silu", Epilogue::silu}, {"gate", Epilogue::gate}}};

// The keyword arguments of one call; fills struct fields by name.
class Arguments {
public:
    Arguments(const char* op, py::kwargs given) : op(op), left(std::move(given)) {}

    template <typename Field>
    Arguments& operator()(const char* name, Field& field) {
        if (!left.contains(name)) throw py::type_error(message("missing argument", name));
        const py::object value = left[name];
        PyDict_DelItemString(left.ptr(), name);
        try {
            field = convert<Field>(value);
        } catch (const py::cast_error&) {
            throw py::type_error(message("wrong type of argument", name));
        }
        return *this;
    }

    void check_all_taken() const {
        if (left.size()) {
            const auto name = py::str(left.begin()->first).cast<std::string>();
            throw py::type_error(message("unknown argument", name));
        }
    }

private:
    template <typename Field>
    Field convert(const py::object& value) const {
        if constexpr (std::is_pointer_v<Field>) {
            return reinterpret_cast<Field>(value.is_none() ? 0 : value.cast<uintptr_t>());
        } else if constexpr (std::is_enum_v<Field>) {
            const auto& names = std::get<Names<Field>>(NAMES);
            const auto found = names.find(value.cast<std::string>());
            if (found == names.end()) {
                throw py::value_error(message("unknown name", value.cast<std::string>()));
            }
            return found->second;
        } else {
            return value.cast<Field>();
        }
    }

    std::string message(const char* what, const std::string& name) const {
        return std::string(op) + ": " + what + " " + name;
    }

    const char* op;
    py::kwargs left;
};

void fill(SpanGateParams& p, Arguments& take) {
    take("x", p.x)("y", p.y)("out", p.out);
    take("size", p.size)("dtype", p.dtype);
}

void fill(SpanGateBackwardParams& p, Arguments& take) {
    take("grad", p.grad)("x", p.x)("y", p.y)("dx", p.dx)("dy", p.dy);
    take("size", p.size)("dtype", p.dtype);
}

void fill(Conv3x3Params& p, Arguments& take) {
    take("x", p.x)("weights", p.weights)("biases", p.biases)("gate", p.gate)("out", p.out);
    take("epilogue", p.epilogue)("channels", p.channels)("n", p.n)("h", p.h)("w", p.w);
    take("layout", p.layout)("fp16_accumulation", p.fp16_accumulation);
}

void fill(SpabParams& p, Arguments& take) {
    take("x", p.x)("weights", p.weights)("biases", p.biases)("scratch", p.scratch)("out", p.out);
    take("convs", p.convs)("channels", p.channels)("n", p.n)("h", p.h)("w", p.w);
    take("layout", p.layout)("fp16_accumulation", p.fp16_accumulation);
}

void fill(Conv3x3WgmmaParams& p, Arguments& take) {
    take("x", p.x)("weights", p.weights)("biases", p.biases)("gate", p.gate)("out", p.out);
    take("epilogue", p.epilogue)("channels", p.channels)("n", p.n)("h", p.h)("w", p.w);
    take("overlap", p.overlap);
}

void fill(SpabWgmmaParams& p, Arguments& take) {
    take("x", p.x)("weights", p.weights)("biases", p.biases)("scratch", p.scratch)("out", p.out);
    take("convs", p.convs)("channels", p.channels)("n", p.n)("h", p.h)("w", p.w);
    take("overlap", p.overlap);
}

void fill(Conv9x9HeadParams& p, Arguments& take) {
    take("x", p.x)("weights", p.weights)("biases", p.biases)("out", p.out);
    take("dtype", p.dtype)("n", p.n)("h", p.h)("w", p.w);
    take("x_layout", p.x_layout)("layout", p.layout);
}

void fill(TailParams& p, Arguments& take) {
    take("x", p.x)("single0", p.single[0])("single1", p.single[1])("single2", p.single[2]);
    take("weights", p.weights)("single_weights", p.single_weights)("up_weights", p.up_weights);
    take("biases", p.biases)("out", p.out)("singles", p.singles)("scale", p.scale);
    take("clamp", p.clamp)("dtype", p.dtype)("n", p.n)("h", p.h)("w", p.w);
    take("layout", p.layout)("out_layout", p.out_layout);
}

void fill(Conv9x9HeadWgmmaParams& p, Arguments& take) {
    take("x", p.x)("weights", p.weights)("biases", p.biases)("out", p.out);
    take("dtype", p.dtype)("n", p.n)("h", p.h)("w", p.w);
    take("x_layout", p.x_layout)("overlap", p.overlap);
}

void fill(TailWgmmaParams& p, Arguments& take) {
    take("x", p.x)("single0", p.single[0])("single1", p.single[1])("single2", p.single[2]);
    take("weights", p.weights)("biases", p.biases)("out", p.out)("trusted", p.trusted);
    take("limit", p.limit)("singles", p.singles)("scale", p.scale)("clamp", p.clamp);
    take("last_planes", p.last_planes);
    take("dtype", p.dtype)("n", p.n)("h", p.h)("w", p.w);
    take("out_layout", p.out_layout)("overlap", p.overlap);
}

void fill(DctL1Params& p, Arguments& take) {
    take("a", p.a)("b", p.b)("across", p.across)("down", p.down);
    take("between", p.between)("partial", p.partial)("counts", p.counts);
    take("gradient", p.gradient);
    take("strips", p.strips)("h", p.h)("w", p.w)("block_w", p.block_w);
    take("scale", p.scale)("dtype", p.dtype);
}

template <typename Params>
void define(
    py::module_& module, const char* op, cudaError_t (*launcher)(const Params&, cudaStream_t)) {
    module.def(op, [=](const py::kwargs& given) {
        Arguments arguments(op, given);
        Params params{};
        fill(params, arguments);
        cudaStream_t stream;
        arguments("stream", stream).check_all_taken();
        const py::gil_scoped_release unlocked;
        return int(launcher(params, stream));
    });
}

}  // namespace

PYBIND11_MODULE(_cuda, module) {
    // The loader compares this hash with the sources next to the package.
    module.attr("SOURCE_HASH") = ESPAN_SOURCE_HASH;
#ifdef ESPAN_SHIM
    module.attr("DEVICE") = "cpu";
    module.def("seed", &shim::seed);
    module.def("run_last_blocks", &shim::run_last_blocks);
    module.def("set_tanh_error", &shim::set_tanh_error);
#else
    module.attr("DEVICE") = "cuda";
#endif
    module.attr("OUT_OF_MEMORY") = static_cast<int>(cudaErrorMemoryAllocation);
    module.def("describe", [](int error) {
        const auto code = static_cast<cudaError_t>(error);
        return std::string(cudaGetErrorName(code)) + ": " + cudaGetErrorString(code);
    });

    define(module, "span_gate", span_gate);
    define(module, "span_gate_backward", span_gate_backward);
    define(module, "conv3x3", conv3x3);
    define(module, "spab", spab);
    define(module, "conv9x9_head", conv9x9_head);
    define(module, "tail", tail);
    define(module, "dct_l1", dct_l1);
    // Whether the sm_90a kernels, which have their own files, were built.
#ifdef ESPAN_WGMMA
    module.attr("WGMMA") = true;
    define(module, "conv3x3_wgmma", conv3x3_wgmma);
    define(module, "spab_wgmma", spab_wgmma);
    define(module, "conv9x9_head_wgmma", conv9x9_head_wgmma);
    define(module, "tail_wgmma", tail_wgmma);
#else
    module.attr("WGMMA") = false;
#endif
    module.def(
        "dct_l1_scratch",
        [](int64_t strips, int64_t h, int64_t w, int64_t block_w) {
            const auto scratch = dct_l1_scratch(strips, h, w, block_w);
            return py::make_tuple(scratch.between, scratch.partial, scratch.counts);
        },
        py::arg("strips"), py::arg("h"), py::arg("w"), py::arg("block_w"));
}
