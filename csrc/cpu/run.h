// Runs layers on threads. Each .cpp beside this file instantiates it for the instructions that it is
// compiled for: nothing of that runs before `has` says so.
#pragma once

#include <algorithm>
#include <atomic>
#include <system_error>
#include <thread>

#include "bands.h"
#include "bytes.h"
#include "epilogue.h"
#include "units.h"

namespace espan_cpu {

// Rows first..last of a layer.
template <class Unit>
void rows(const Layer<typename Unit::Element>& layer, int first, int last) {
    // The epilogue of a group runs between the products of the next one.
    alignas(64) float sums[2][Unit::kGroup * kMaxTiles * kTile];
    Finisher<typename Unit::Lanes, typename Unit::Element> finisher(layer, Unit::kGroup);
    const int products = 2 * layer.tiles() * static_cast<int>(layer.taps.size());
    const int share = (Unit::kGroup + products - 1) / products;  // pixels of the epilogue at a time
    int current = 0;
    for (int y = first; y < last; ++y) {
        for (int x = 0; x < layer.width; x += Unit::kGroup) {
            Unit::sums(layer, y, x, sums[current], [&] { finisher.advance(share); });
            finisher.advance(Unit::kGroup);
            finisher.begin(sums[current], y, x);
            current ^= 1;
        }
    }
    finisher.advance(Unit::kGroup);
}

// Runs work() on threads, at most one for kRows rows.
template <class Work>
void on_threads(int threads, int height, const Work& work) {
    threads = std::min(threads, (height + kRows - 1) / kRows);
    std::vector<std::thread> others;
    try {
        for (int i = 1; i < threads; ++i) others.emplace_back(work);
    } catch (const std::system_error&) {  // out of threads: those that run do the others' share
    }
    work();
    for (std::thread& each : others) each.join();
}

template <class Unit>
void run_on(const Layers<typename Unit::Element>& layers, int threads) {
    if (layers.empty()) return;
    Bands bands(layers, threads);
    on_threads(threads, layers[0].height, [&] {
        [[maybe_unused]] const Unit unit;
        bands.work([&](int i, int first, int last) { rows<Unit>(layers[i], first, last); });
    });
}

template <class Lanes, class Element>
bool to_bytes(const Pixels<Element>& pixels, int threads) {
    std::atomic<int> next{0};
    std::atomic<bool> finite{true};
    on_threads(threads, pixels.height, [&] {
        for (int y; (y = next.fetch_add(kRows)) < pixels.height;)
            for (int row = y; row < std::min(y + kRows, pixels.height); ++row)
                if (!row_to_bytes<Lanes>(pixels.in + row * pixels.in_row,
                                         pixels.out + row * pixels.out_row, pixels.channels,
                                         pixels.width))
                    finite = false;
    });
    return finite;
}

}  // namespace espan_cpu
