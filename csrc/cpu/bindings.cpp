// The layers as the Python module `_cpu`. Compiled for any x86-64, as is all that runs on import.

#include <cpuid.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <stdexcept>
#include <string>

#include "layers.h"

namespace py = pybind11;
using namespace espan_cpu;

namespace espan_cpu {

bool has(Unit unit) {
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx512bw") || !__builtin_cpu_supports("avx512dq") ||
        !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512bf16"))
        return false;
    if (unit == Unit::avx512) return true;
    unsigned a, b, c, d;
    const bool tiles = __get_cpuid_count(7, 0, &a, &b, &c, &d) && d & 1u << 22 && d & 1u << 24;
    // Linux gives a process the registers of AMX only when it asks: ARCH_REQ_XCOMP_PERM.
    return tiles && syscall(SYS_arch_prctl, 0x1023, 18) == 0;
}

}  // namespace espan_cpu

namespace {

template <class T>
T* address(const py::dict& from, const char* name) {
    return reinterpret_cast<T*>(from[name].cast<uintptr_t>());
}

Tap tap(const py::tuple& given) {
    return {reinterpret_cast<const Bfloat16*>(given[0].cast<uintptr_t>()), given[1].cast<int64_t>(),
            given[2].cast<int64_t>()};
}

Epilogue epilogue(const std::string& name) {
    if (name == "none") return Epilogue::none;
    if (name == "silu") return Epilogue::silu;
    if (name == "gate") return Epilogue::gate;
    if (name == "shuffle") return Epilogue::shuffle;
    throw std::invalid_argument("epilogue: " + name);
}

Layer layer(const py::dict& given) {
    Layer made;
    for (const py::handle each : given["taps"]) made.taps.push_back(tap(each.cast<py::tuple>()));
    made.weights = address<const Bfloat16>(given, "weights");
    made.bias = address<const float>(given, "bias");
    made.channels = given["channels"].cast<int>();
    made.epilogue = epilogue(given["epilogue"].cast<std::string>());
    made.gate = tap(given["gate"].cast<py::tuple>());
    made.out = address<Bfloat16>(given, "out");
    made.row = given["row"].cast<int64_t>();
    made.pixel = given["pixel"].cast<int64_t>();
    made.height = given["height"].cast<int>();
    made.width = given["width"].cast<int>();
    made.reach = given["reach"].cast<int>();
    made.scale = given["scale"].cast<int>();
    if (made.taps.empty() || made.channels < 1 || made.tiles() > kMaxTiles || made.height < 1 ||
        made.width < 1 || made.reach < 0 ||
        (made.epilogue == Epilogue::shuffle &&
         (made.scale < 1 || made.scale > 4 || made.channels != 3 * made.scale * made.scale)))
        throw std::invalid_argument("a layer that cannot be");
    return made;
}

Unit unit_named(const std::string& name) {
    if (name == "amx") return Unit::amx;
    if (name == "avx512") return Unit::avx512;
    throw std::invalid_argument("unit: " + name);
}

}  // namespace

PYBIND11_MODULE(_cpu, module) {
    module.attr("SOURCE_HASH") = ESPAN_SOURCE_HASH;
    module.attr("TAP") = kTap;
    module.attr("TILE") = kTile;
    module.attr("GROUP") = kGroup;
    module.attr("MAX_TILES") = kMaxTiles;
    module.def("has", [](const std::string& unit) { return has(unit_named(unit)); });
    module.def("run", [](const py::list& given, const std::string& unit, int threads) {
        std::vector<Layer> layers;
        for (const py::handle each : given) {
            layers.push_back(layer(each.cast<py::dict>()));
            if (layers.back().height != layers[0].height)
                throw std::invalid_argument("layers of different heights");
        }
        if (threads < 1 || !has(unit_named(unit))) throw std::invalid_argument("unit, threads");
        py::gil_scoped_release release;
        run(layers, unit_named(unit), threads);
    });
    module.def("to_bytes", [](uintptr_t in, int64_t in_row, uintptr_t out, int64_t out_row,
                              int channels, int height, int width, int threads) {
        if ((channels != 3 && channels != 4) || threads < 1 || !has(Unit::avx512))
            throw std::invalid_argument("channels, threads");
        const Pixels pixels{reinterpret_cast<const Bfloat16*>(in), in_row,
                            reinterpret_cast<uint8_t*>(out), out_row, channels, height, width};
        py::gil_scoped_release release;
        return to_bytes(pixels, threads);
    });
}
