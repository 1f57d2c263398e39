// Shares the rows of all layers out to threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <vector>

#include "layers.h"

namespace espan_cpu {

constexpr int kRows = 4;  // of a band, at least
constexpr int kMaxRows = 32;
constexpr int64_t kBandBytes = 1 << 19;  // of a feature map's rows in a band, at most

// Bands of layers of one height. A band is a range of rows of every layer, shifted up by the
// layer's lag. A layer of a band may run once the band above has completed that layer.
//
// The lag of a layer behind the one before it covers the rows that it reads below its own, so they
// are there; and the rows that the layer before it has yet to read above its own, so it may write
// to a map that the layer before it reads.
class Bands {
  public:
    template <class Element>
    Bands(const Layers<Element>& layers, int threads)
        : layers_(static_cast<int>(layers.size())), height_(layers[0].height), window_(2 * threads) {
        int64_t bytes = 1;  // of the longest row
        lag_.push_back(0);
        for (int i = 0; i < layers_; ++i) {
            if (i) lag_.push_back(lag_[i - 1] + std::max(layers[i - 1].reach, layers[i].reach));
            for (const Tap<Element>& tap : layers[i].taps)
                bytes = std::max<int64_t>(bytes, tap.row * sizeof(Element));
        }
        // As many rows as stay in a core's cache, but enough bands for all threads.
        const int fit = static_cast<int>(std::min<int64_t>(kBandBytes / bytes, kMaxRows));
        const int height = height_ + lag_.back();
        rows_ = std::max(kRows, std::min(fit, height / (4 * threads)));
        bands_ = std::vector<Band>((height + rows_ - 1) / rows_);
    }

    // Calls compute(layer, first row, last row) until all bands are complete; every thread calls
    // this. A thread takes the topmost band that no other thread has, and computes layer after
    // layer until it would have to wait for the band above; then it takes the next band.
    template <class Compute>
    void work(const Compute& compute) {
        const int count = static_cast<int>(bands_.size());
        for (int top = 0; top < count;) {
            const int seen = steps_;
            bool worked = false;
            for (int band = top; band < std::min(top + window_, count); ++band) {
                if (bands_[band].taken.exchange(true)) continue;
                for (; ready(band); worked = true) step(band, compute);
                bands_[band].taken = false;
            }
            while (top < count && bands_[top].completed == layers_) ++top;
            if (top < count && !worked) steps_.wait(seen);
        }
    }

  private:
    struct Band {
        std::atomic<int> completed{0};  // layers
        std::atomic<bool> taken{false};
    };

    bool ready(int band) const {
        const int next = bands_[band].completed;
        return next < layers_ && (band == 0 || bands_[band - 1].completed > next);
    }

    template <class Compute>
    void step(int band, const Compute& compute) {
        const int layer = bands_[band].completed;
        const int first = std::clamp(band * rows_ - lag_[layer], 0, height_);
        const int last = std::clamp((band + 1) * rows_ - lag_[layer], 0, height_);
        compute(layer, first, last);
        bands_[band].completed = layer + 1;
        ++steps_;
        steps_.notify_all();
    }

    const int layers_, height_;
    const int window_;  // bands from the first incomplete one that threads consider
    int rows_;
    std::vector<int> lag_;  // rows by which each layer lags behind the first
    std::vector<Band> bands_;
    std::atomic<int> steps_{0};  // layers of bands that are complete
};

}  // namespace espan_cpu
