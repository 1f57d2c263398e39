// Runs layers on threads. Compiled for AVX-512 and AMX: nothing here runs before `has` says so.

#include <algorithm>
#include <atomic>
#include <barrier>
#include <system_error>
#include <thread>

#include "epilogue.h"
#include "units.h"

namespace espan_cpu {
namespace {

constexpr int kRows = 4;  // rows that a thread takes at a time

// Rows first..last of a layer; false if a number was not finite.
template <class Unit>
bool rows(const Layer& layer, int first, int last) {
    // The products of a group go beside the epilogue of the group before it.
    alignas(64) float sums[2][kGroup * kMaxTiles * kTile];
    Finisher finisher(layer);
    const int taps = static_cast<int>(layer.taps.size());
    const int share = std::max(1, (kGroup + taps - 1) / taps);
    int current = 0;
    for (int y = first; y < last; ++y) {
        for (int x = 0; x < layer.width; x += kGroup) {
            Unit::sums(layer, y, x, sums[current], [&] { finisher.some(share); });
            finisher.some(kGroup);
            finisher.begin(sums[current], y, x);
            current ^= 1;
        }
    }
    finisher.some(kGroup);
    return finisher.finite();
}

template <class Unit>
bool run_on(const std::vector<Layer>& layers, int threads) {
    std::vector<std::atomic<int>> next(layers.size());  // row of each layer that nobody has taken
    std::atomic<bool> finite{true};
    std::barrier done(threads);  // with a layer: the next one reads its rows

    const auto work = [&] {
        [[maybe_unused]] const Unit unit;
        for (size_t i = 0; i < layers.size(); ++i) {
            const int height = layers[i].height;
            for (int y; (y = next[i].fetch_add(kRows)) < height;)
                if (!rows<Unit>(layers[i], y, std::min(y + kRows, height))) finite = false;
            done.arrive_and_wait();
        }
    };

    std::vector<std::thread> others;
    for (int i = 1; i < threads; ++i) {
        try {
            others.emplace_back(work);
        } catch (const std::system_error&) {  // no more threads here: the rest do their share
            done.arrive_and_drop();
        }
    }
    work();
    for (std::thread& each : others) each.join();
    return finite;
}

}  // namespace

bool run(const std::vector<Layer>& layers, Unit unit, int threads) {
    return unit == Unit::amx ? run_on<Amx>(layers, threads) : run_on<Avx512>(layers, threads);
}

}  // namespace espan_cpu
