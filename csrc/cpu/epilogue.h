// Applies a layer's epilogue to its float32 sums and stores them.
#pragma once

#include "lanes.h"

namespace espan_cpu {

// Applies the epilogue to a group of pixels with sums (group, 16 * tiles). `advance` processes a few
// pixels, so that this work overlaps with the products of the next group.
template <class Lanes, class Element>
class Finisher {
  public:
    Finisher(const Layer<Element>& layer, int group)
        : layer_(layer), stride_(layer.tiles() * kTile), group_(group) {}

    void begin(const float* sums, int y, int x) {
        sums_ = sums, y_ = y, x_ = x, done_ = 0;
        count_ = layer_.width - x < group_ ? layer_.width - x : group_;
    }

    void advance(int pixels) {
        const int end = done_ + pixels < count_ ? done_ + pixels : count_;
        switch (layer_.epilogue) {
            case Epilogue::shuffle:
                for (; done_ < end; ++done_) shuffle(done_);
                break;
            case Epilogue::gate:
                for (; done_ < end; ++done_) store<Epilogue::gate>(done_);
                break;
            case Epilogue::silu:
                for (; done_ < end; ++done_) store<Epilogue::silu>(done_);
                break;
            case Epilogue::none:
                for (; done_ < end; ++done_) store<Epilogue::none>(done_);
        }
    }

  private:
    using Vector = typename Lanes::Vector;

    template <Epilogue kind>
    void store(int pixel) {
        const float* sums = sums_ + pixel * stride_;
        const int64_t x = x_ + pixel;
        Element* out = layer_.out + y_ * layer_.row + x * layer_.pixel;
        const Element* gate = layer_.gate.pixels + y_ * layer_.gate.row + x * layer_.gate.pixel;
        for (int n = 0; n < layer_.channels; n += Lanes::kCount) {
            Vector y = Lanes::load(sums + n);
            if constexpr (kind == Epilogue::silu) y = y * Lanes::sigmoid(y);
            if constexpr (kind == Epilogue::gate) {
                const Vector x = Lanes::load(gate + n, layer_.channels - n);
                y = (y + x) * (Lanes::sigmoid(y) - Lanes::all(0.5f));
            }
            Lanes::store(out + n, y, layer_.channels - n);
        }
    }

    void shuffle(int pixel) {
        const int s = layer_.scale;
        for (int r = 0; r < s; ++r) {
            const float* sums = sums_ + pixel * stride_ + r * 3 * s;
            const int64_t at = (y_ * int64_t{s} + r) * layer_.row + (x_ + pixel) * s * layer_.pixel;
            for (int n = 0; n < 3 * s; n += Lanes::kCount)
                Lanes::store(layer_.out + at + n, Lanes::load(sums + n, 3 * s - n), 3 * s - n);
        }
    }

    const Layer<Element>& layer_;
    const int stride_, group_;
    const float* sums_ = nullptr;
    int y_ = 0, x_ = 0, done_ = 0, count_ = 0;
};

}  // namespace espan_cpu
