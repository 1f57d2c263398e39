// One 3x3 convolution of a kernel, computed by a warpgroup: what it does with each row of input.
//
// A row is multiplied into the three open rows of output that it reaches, all their channels side
// by side along N: one wgmma for each kernel column and 16 channels in. While these products are
// made, the row that the previous one has finished goes through its epilogue.
#pragma once

#include "wgmma/strip.cuh"

namespace espan::wgmma_rows {

// The rows of input of a convolution, over all items of its block. Row i of an item finishes row
// i - 2 of the item's output.
struct Rows {
    const Cut& cut;
    int reach;  // rows that it reads above an item's, and below
    int64_t index;
    Item it;
    int i = 0;

    __device__ Rows(const Cut& cut, int reach)
        : cut(cut), reach(reach), index(blockIdx.x), it(item(cut, index)) {}

    __device__ bool any() const { return index < cut.items; }
    __device__ bool finishes() const { return i >= 2; }
    __device__ int finished_row() const { return it.top - reach + i - 1; }
    __device__ void next() {
        if (++i < it.rows + 2 * reach) return;
        i = 0;
        index += gridDim.x;
        it = item(cut, index);
    }
};

// The row whose sums a thread has taken out, and whether its two pixels lie in the image.
struct Finished {
    bool any = false, inside[2];
};

// Starts the products of a row at `row` of a ring, into the open rows `acc`. Open row o is finished
// by this one at phase (o + 1) % 3, opened by it at phase (o + 2) % 3.
template <int PHASE, class W, int COUNT>
__device__ inline void multiply(float (&acc)[COUNT], Address row, Address weights) {
    const uint64_t a = Matrix{row, PLANE}.descriptor();
    const uint64_t b = Matrix{weights, W::HALF}.descriptor();
    hold(acc);
    wgmma_fence();
#pragma unroll
    for (int kx = 0; kx < TAPS; ++kx) {
#pragma unroll
        for (int step = 0; step < W::STEPS; ++step) {
            const int tap = (kx * W::STEPS + step) * 2 * W::HALF + W::shift(PHASE);
            wgmma(acc, moved(a, 2 * step * PLANE + kx * PIXEL), moved(b, tap));
        }
    }
    wgmma_commit();
}

// SiLU of z for h = z / 2, which is what halved weights give.
__device__ inline float silu_of_half(float h) { return h * tanh_approx(h) + h; }

// (z + x) * (sigmoid(z) - 1/2) for h = z / 2.
__device__ inline float gate_by_half(float x, float h) {
    return (0.5f * x + h) * tanh_approx(h);
}

// Convolution CONV of a kernel; EPILOGUE: of the last one.
template <class S, int CONVS, int CONV, Epilogue EPILOGUE>
struct Convolution {
    static constexpr bool IS_FIRST = CONV == 0, IS_LAST = CONV == CONVS - 1;
    static constexpr int REACH = CONVS - CONV, SUMS = S::SUMS;

    const Work& work;
    Rings<S> rings;
    int lane, warp;

    __device__ Convolution(const Work& work, Rings<S> rings)
        : work(work), rings(rings), lane(lane_id()),
          warp(warp_uniform(threadIdx.x / 32 % WARPGROUP_WARPS)) {}

    // This lane's row of a matrix of 8 pixels, of two planes with 16 pixels of the warp's each.
    __device__ int matrix_row(int pitch) const {
        return lane / 16 * pitch + (16 * warp + lane % 16) * PIXEL;
    }

    // The pairs of two planes as words of matrices: [plane][pixels g, g + 8].
    template <typename Pair>
    __device__ static void pack(uint32_t (&words)[4], const float* sum, Pair pair) {
#pragma unroll
        for (int i = 0; i < 4; ++i) words[i] = pair(i, sum[2 * i], sum[2 * i + 1]);
    }

    // Outside of the image a hidden row is 0.
    template <class Out>
    __device__ void store_hidden(Out& out, const float (&sum)[SUMS], const Finished& row) const {
        out.wait();
        const Address to = out.data() + matrix_row(PLANE) + PIXEL;
#pragma unroll
        for (int plane = 0; plane < S::PLANES; plane += 2) {
            uint32_t words[4];
            pack(words, sum + 4 * plane, [&](int i, float h0, float h1) {
                return row.inside[i % 2] ? pack_half2(silu_of_half(h0), silu_of_half(h1)) : 0;
            });
            store_matrices(to + plane * PLANE, words);
        }
        out.hand_on();
    }

    template <class Out, class Gate>
    __device__ void store_output(Out& out, Gate& gate, const float (&sum)[SUMS]) const {
        if (EPILOGUE == Epilogue::gate) gate.wait();
        out.wait();
        const int at = matrix_row(NARROW_PLANE);
#pragma unroll
        for (int plane = 0; plane < S::PLANES; plane += 2) {
            uint32_t words[4], before[4];
            if (EPILOGUE == Epilogue::gate) {
                load_matrices(before, gate.data() + at + plane * NARROW_PLANE);
            }
            pack(words, sum + 4 * plane, [&](int i, float z0, float z1) {
                if (EPILOGUE == Epilogue::silu) {
                    return pack_half2(silu_of_half(z0), silu_of_half(z1));
                }
                if (EPILOGUE == Epilogue::none) return pack_half2(z0, z1);
                const float2 x = unpack_half2(before[i]);
                return pack_half2(gate_by_half(x.x, z0), gate_by_half(x.y, z1));
            });
            store_matrices(out.data() + at + plane * NARROW_PLANE, words);
        }
        if (EPILOGUE == Epilogue::gate) gate.free();
        out.hand_on();
    }

    // The row that rows.i finishes.
    __device__ Finished finished(const Rows& rows) const {
        Finished row{rows.finishes()};
        const bool has_row = unsigned(rows.finished_row()) < unsigned(work.cut.height);
        const int x = int(rows.it.strip) * S::USEFUL - S::HALO + 16 * warp + lane / 4;
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            row.inside[i] = has_row && unsigned(x + 8 * i) < unsigned(work.cut.width);
        }
        return row;
    }

    template <class In, class Out, class Gate>
    __device__ void run(In in, Out out, Gate gate) const {
        float bias[S::PLANES][2], acc[TAPS * SUMS], sum[SUMS];
#pragma unroll
        for (int plane = 0; plane < S::PLANES; ++plane) {
            const float2 pair = work.biases.load((CONV * S::PLANES + plane) * 4 + lane % 4);
            bias[plane][0] = pair.x;
            bias[plane][1] = pair.y;
        }
#pragma unroll
        for (int i = 0; i < TAPS * SUMS; ++i) acc[i] = bias[i / 4 % S::PLANES][i % 2];
#pragma unroll
        for (int i = 0; i < SUMS; ++i) sum[i] = 0;
        const Address weights = rings.start + CONV * S::W::BYTES;
        wait_past(rings.start + S::LOADED, 0, "the weights");

        Finished row;
        const auto store = [&] {
            if (!row.any) return;
            if constexpr (IS_LAST) {
                store_output(out, gate, sum);
            } else {
                store_hidden(out, sum, row);
            }
        };
        // Between items the open rows are not opened anew: what they hold at an item's first two
        // rows ends up in rows that are not stored.
        Rows rows(work.cut, REACH);
        const auto advance = [&](auto phase) {
            constexpr int PHASE = decltype(phase)::value, DONE = (PHASE + 2) % TAPS;
            in.wait();
            multiply<PHASE, typename S::W>(acc, in.data(), weights);
            store();
            wgmma_wait<0>();
            hold(acc);
            in.free();
#pragma unroll
            for (int i = 0; i < SUMS; ++i) {
                take(sum[i], acc[DONE * SUMS + i], bias[i / 4][i % 2]);
            }
            row = finished(rows);
            rows.next();
        };
        while (rows.any()) {
            advance(std::integral_constant<int, 0>());
            if (rows.any()) advance(std::integral_constant<int, 1>());
            if (rows.any()) advance(std::integral_constant<int, 2>());
        }
        store();
    }
};

}  // namespace espan::wgmma_rows
