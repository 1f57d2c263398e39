// Runs layers on threads. Compiled for AVX-512 and AMX: nothing here runs before `has` says so.

#include <algorithm>
#include <atomic>
#include <barrier>
#include <system_error>
#include <thread>

#include "bytes.h"
#include "epilogue.h"
#include "units.h"

namespace espan_cpu {
namespace {

constexpr int kRows = 4;  // rows that a thread takes at a time

// Rows first..last of a layer.
template <class Unit>
void rows(const Layer& layer, int first, int last) {
    // The epilogue of a group runs between the products of the next one.
    alignas(64) float sums[2][kGroup * kMaxTiles * kTile];
    Finisher finisher(layer);
    const int taps = static_cast<int>(layer.taps.size());
    const int share = (kGroup + taps - 1) / taps;
    int current = 0;
    for (int y = first; y < last; ++y) {
        for (int x = 0; x < layer.width; x += kGroup) {
            Unit::sums(layer, y, x, sums[current], [&] { finisher.advance(share); });
            finisher.advance(kGroup);
            finisher.begin(sums[current], y, x);
            current ^= 1;
        }
    }
    finisher.advance(kGroup);
}

// Runs work(done) on threads that can wait for each other at `done`, at most one for kRows rows.
template <class Work>
void on_threads(int threads, int height, const Work& work) {
    threads = std::min(threads, (height + kRows - 1) / kRows);
    std::barrier<> done(threads);
    std::vector<std::thread> others;
    for (int i = 1; i < threads; ++i) {
        try {
            others.emplace_back([&] { work(done); });
        } catch (const std::system_error&) {  // out of threads: the others do its share
            done.arrive_and_drop();
        }
    }
    work(done);
    for (std::thread& each : others) each.join();
}

template <class Unit>
void run_on(const std::vector<Layer>& layers, int threads) {
    std::vector<std::atomic<int>> next(layers.size());  // first row of each layer not yet taken
    int tallest = 1;
    for (const Layer& layer : layers) tallest = std::max(tallest, layer.height);
    on_threads(threads, tallest, [&](std::barrier<>& done) {
        [[maybe_unused]] const Unit unit;
        for (size_t i = 0; i < layers.size(); ++i) {
            const int height = layers[i].height;
            for (int y; (y = next[i].fetch_add(kRows)) < height;)
                rows<Unit>(layers[i], y, std::min(y + kRows, height));
            done.arrive_and_wait();  // the next layer reads rows of all threads
        }
    });
}

}  // namespace

void run(const std::vector<Layer>& layers, Unit unit, int threads) {
    if (unit == Unit::amx)
        run_on<Amx>(layers, threads);
    else
        run_on<Avx512>(layers, threads);
}

bool to_bytes(const Pixels& pixels, int threads) {
    std::atomic<int> next{0};
    std::atomic<bool> finite{true};
    on_threads(threads, std::max(1, pixels.height), [&](std::barrier<>&) {
        for (int y; (y = next.fetch_add(kRows)) < pixels.height;)
            for (int row = y; row < std::min(y + kRows, pixels.height); ++row)
                if (!row_to_bytes(pixels.in + row * pixels.in_row,
                                  pixels.out + row * pixels.out_row, pixels.channels,
                                  pixels.width))
                    finite = false;
    });
    return finite;
}

}  // namespace espan_cpu
