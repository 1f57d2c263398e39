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
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) return false;
    if (unit == Unit::avx2) return true;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512dq") || !__builtin_cpu_supports("avx512vl"))
        return false;
    if (unit == Unit::avx512) return true;
    if (!__builtin_cpu_supports("avx512bf16")) return false;
    if (unit == Unit::avx512_bf16) return true;
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

template <class Element>
Tap<Element> tap(const py::tuple& given) {
    return {reinterpret_cast<const Element*>(given[0].cast<uintptr_t>()), given[1].cast<int64_t>(),
            given[2].cast<int64_t>(), given[3].cast<int>()};
}

Epilogue epilogue(const std::string& name) {
    if (name == "none") return Epilogue::none;
    if (name == "silu") return Epilogue::silu;
    if (name == "gate") return Epilogue::gate;
    if (name == "shuffle") return Epilogue::shuffle;
    throw std::invalid_argument("epilogue: " + name);
}

template <class Element>
bool possible(const Layer<Element>& layer) {
    for (const Tap<Element>& each : layer.taps)
        if (each.values < 1 || each.values > kTap) return false;
    const int s = layer.scale;
    const bool shuffles = layer.epilogue == Epilogue::shuffle;
    return !layer.taps.empty() && layer.channels >= 1 && layer.tiles() <= kMaxTiles &&
           layer.height >= 1 && layer.width >= 1 && layer.reach >= 0 &&
           (!shuffles || (s >= 1 && s <= 4 && layer.channels == 3 * s * s));
}

template <class Element>
Layer<Element> layer(const py::dict& given) {
    Layer<Element> made;
    for (const py::handle each : given["taps"])
        made.taps.push_back(tap<Element>(each.cast<py::tuple>()));
    made.weights = address<const Element>(given, "weights");
    made.bias = address<const float>(given, "bias");
    made.channels = given["channels"].cast<int>();
    made.epilogue = epilogue(given["epilogue"].cast<std::string>());
    made.gate = tap<Element>(given["gate"].cast<py::tuple>());
    made.out = address<Element>(given, "out");
    made.row = given["row"].cast<int64_t>();
    made.pixel = given["pixel"].cast<int64_t>();
    made.height = given["height"].cast<int>();
    made.width = given["width"].cast<int>();
    made.reach = given["reach"].cast<int>();
    made.scale = given["scale"].cast<int>();
    if (!possible(made)) throw std::invalid_argument("a layer that cannot be");
    return made;
}

template <class Element>
void run(void (*on_unit)(const Layers<Element>&, int), const py::list& given, int threads) {
    Layers<Element> layers;
    for (const py::handle each : given) {
        layers.push_back(layer<Element>(each.cast<py::dict>()));
        if (layers.back().height != layers[0].height)
            throw std::invalid_argument("layers of different heights");
    }
    py::gil_scoped_release release;
    on_unit(layers, threads);
}

template <class Element>
bool to_bytes(bool (*on_unit)(const Pixels<Element>&, int), uintptr_t in, int64_t in_row,
              uintptr_t out, int64_t out_row, int channels, int height, int width, int threads) {
    const Pixels<Element> pixels{reinterpret_cast<const Element*>(in), in_row,
                                 reinterpret_cast<uint8_t*>(out), out_row, channels, height, width};
    py::gil_scoped_release release;
    return on_unit(pixels, threads);
}

Unit unit_named(const std::string& name) {
    if (name == "amx") return Unit::amx;
    if (name == "avx512_bf16") return Unit::avx512_bf16;
    if (name == "avx512") return Unit::avx512;
    if (name == "avx2") return Unit::avx2;
    throw std::invalid_argument("unit: " + name);
}

Unit unit_here(const std::string& name, int threads) {
    const Unit unit = unit_named(name);
    if (threads < 1 || !has(unit)) throw std::invalid_argument("unit, threads");
    return unit;
}

}  // namespace

PYBIND11_MODULE(_cpu, module) {
    module.attr("SOURCE_HASH") = ESPAN_SOURCE_HASH;
    module.attr("TAP") = kTap;
    module.attr("TILE") = kTile;
    module.attr("GROUP") = kGroup;
    module.attr("MAX_TILES") = kMaxTiles;
    __builtin_cpu_init();
    module.attr("INTEL") = __builtin_cpu_is("intel") != 0;
    module.def("has", [](const std::string& unit) { return has(unit_named(unit)); });
    module.def("run", [](const py::list& given, const std::string& unit, int threads) {
        switch (unit_here(unit, threads)) {
            case Unit::amx: return run(run_amx, given, threads);
            case Unit::avx512_bf16: return run(run_avx512_bf16, given, threads);
            case Unit::avx512: return run(run_avx512, given, threads);
            case Unit::avx2: return run(run_avx2, given, threads);
        }
    });
    module.def("to_bytes", [](uintptr_t in, int64_t in_row, uintptr_t out, int64_t out_row,
                              int channels, int height, int width, const std::string& unit,
                              int threads) {
        if (channels != 3 && channels != 4) throw std::invalid_argument("channels");
        const auto convert = [&](auto on_unit) {
            return to_bytes(on_unit, in, in_row, out, out_row, channels, height, width, threads);
        };
        switch (unit_here(unit, threads)) {
            case Unit::avx512: return convert(to_bytes_avx512);
            case Unit::avx2: return convert(to_bytes_avx2);
            default: return convert(to_bytes_avx512_bf16);
        }
    });
}
