// Runs layers on threads. Compiled for AVX-512 and AMX: nothing here runs before `has` says so.

#include <algorithm>
#include <atomic>
#include <system_error>
#include <thread>

#include "bytes.h"
#include "epilogue.h"
#include "units.h"

namespace espan_cpu {
namespace {

constexpr int kRows = 4;  // rows that a thread takes at least
constexpr int kMaxRows = 32;
constexpr int64_t kBandBytes = 1 << 19;  // of a map

// Rows first..last of a layer.
template <class Unit>
void rows(const Layer& layer, int first, int last) {
    // The epilogue of a group runs between the products of the next one.
    alignas(64) float sums[2][kGroup * kMaxTiles * kTile];
    Finisher finisher(layer);
    const int products = 2 * layer.tiles() * static_cast<int>(layer.taps.size());
    const int share = (kGroup + products - 1) / products;  // pixels of the epilogue at a time
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

// Rows by which each layer lags behind the first. The lag of a layer covers the rows that it reads
// below its own, so they are there; and the rows that the layer before it has yet to read above its
// own, so it may write to a map that the layer before it reads.
std::vector<int> lags(const std::vector<Layer>& layers) {
    std::vector<int> found{0};
    for (size_t i = 1; i < layers.size(); ++i)
        found.push_back(found.back() + std::max(layers[i - 1].reach, layers[i].reach));
    return found;
}

// Rows of a band: as many as stay in a core's cache, but enough bands for all threads.
int rows_of_band(const std::vector<Layer>& layers, int lag, int threads) {
    int64_t row = 1;
    for (const Layer& layer : layers)
        for (const Tap& tap : layer.taps) row = std::max<int64_t>(row, tap.row * sizeof(Bfloat16));
    const int fit = static_cast<int>(std::min<int64_t>(kBandBytes / row, kMaxRows));
    const int shared = (layers[0].height + lag) / (4 * threads);
    return std::max(kRows, std::min(fit, shared));
}

// A band is a range of rows of every layer, shifted up by the layer's lag. One thread computes a
// band, layer after layer, while its rows are in the core's cache. It starts a layer once all bands
// above have completed the layer, so a thread waits only for the one that has the band above.
template <class Unit>
void run_on(const std::vector<Layer>& layers, int threads) {
    const std::vector<int> lag = lags(layers);
    const int height = layers[0].height, rows_each = rows_of_band(layers, lag.back(), threads);
    const int bands = (height + lag.back() + rows_each - 1) / rows_each;
    std::vector<std::atomic<int>> completed(bands);  // layers of each band
    std::atomic<int> next{0};                        // the first band not yet taken
    on_threads(threads, height, [&] {
        [[maybe_unused]] const Unit unit;
        for (int band; (band = next++) < bands;) {
            for (int i = 0; i < static_cast<int>(layers.size()); ++i) {
                for (int seen; band && (seen = completed[band - 1]) <= i;)
                    completed[band - 1].wait(seen);
                const int first = std::clamp(band * rows_each - lag[i], 0, height);
                const int last = std::clamp((band + 1) * rows_each - lag[i], 0, height);
                rows<Unit>(layers[i], first, last);
                completed[band] = i + 1;
                completed[band].notify_one();
            }
        }
    });
}

}  // namespace

void run(const std::vector<Layer>& layers, Unit unit, int threads) {
    if (layers.empty()) return;
    if (unit == Unit::amx)
        run_on<Amx>(layers, threads);
    else
        run_on<Avx512>(layers, threads);
}

bool to_bytes(const Pixels& pixels, int threads) {
    std::atomic<int> next{0};
    std::atomic<bool> finite{true};
    on_threads(threads, pixels.height, [&] {
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
