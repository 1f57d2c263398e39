// The three passes of dct_l1.cu: what a thread block does with its lines of a group of strips.
#pragma once

#include "dct_l1.cuh"
#include "dct_l1_order.cuh"

namespace espan::dct {

template <typename T>
struct Work {
    Global<const T> a, b;                         // (strips, h, w)
    Global<float> between;                        // (ring, strips per group, h, w)
    Global<float> partial;                        // (items of the second pass, threads)
    Global<T> gradient;                           // (strips, h, w)
    Global<const uint4> across[2], down[2];       // matrices, and their transposes
    Global<unsigned> counts;                      // of Order, initially 0
    Lines rows, columns;                          // of the first and third pass, and of the second
    Order order;
    int together, last;  // strips per group, and of the last group
    int64_t numbers;     // per group
    int area, rows_in_strip;
    int w, words;
    float scale;
};

// A block's part of a pass over a group.
template <typename T, int ROW_TILES>
struct Group {
    const Work<T>& work;
    Shared<uint32_t> parts;
    // Pass, block, group, slot: reread where needed to save registers.
    Shared<int> task;
    Sums<ROW_TILES> sums;

    __device__ int block() const { return load_again(task, 1); }
    __device__ int group() const { return load_again(task, 2); }

    __device__ int strips() const {
        return group() == work.order.groups - 1 ? work.last : work.together;
    }
    // The first number of the group, in the images and in the ring buffer.
    __device__ int64_t start() const { return group() * work.numbers; }
    __device__ int64_t slot() const { return load_again(task, 3) * work.numbers; }
    // The block's first line, and its number of lines, if a strip has `in_strip`.
    __device__ int first(const Lines& lines) const { return block() * lines.rows; }
    __device__ int count(const Lines& lines, int in_strip) const {
        return min(lines.rows, strips() * in_strip - first(lines));
    }
    __device__ int row_count() const { return count(work.rows, work.rows_in_strip); }

    // The block's rows, contiguous in memory.
    template <typename E>
    __device__ Global<E> row_view(Global<E> memory, int64_t from) const {
        const int n = work.rows.n;
        return view(memory, from + int64_t(first(work.rows)) * n, max(row_count(), 0) * n);
    }

    // Transforms rows of a - b.
    __device__ void across() {
        const Lines& lines = work.rows;
        const auto a = row_view(work.a, start()), b = row_view(work.b, start());
        split_lines<ROW_TILES>(lines, row_count(), parts, [&](int row, int i) -> EvenOdd {
            const auto difference = [&](int place) {
                const int at = row * lines.n + place;
                return to_float(load_once(a, at)) - to_float(load_once(b, at));
            };
            const float near = i < lines.even ? difference(i) : 0;
            const float far = i < lines.odd ? difference(lines.n - 1 - i) : 0;
            return {near + far, near - far};
        });
        bar_sync(0, lines.threads);
        multiply<false, ROW_TILES>(lines, parts, work.across[0], sums);
        stage<false, ROW_TILES>(lines, parts, sums);
        const auto to = row_view(work.between, slot());
        for_each_staged(lines, row_count(), lines.n, [&](int row, int i) {
            const int at = i < lines.even ? i : lines.padded + i - lines.even;
            to.store(row * lines.n + i, staged(row * lines.line_pitch + at));
        });
    }

    // Columns to coefficients, whose magnitudes are summed, and their signs back along the columns.
    __device__ void down() {
        const Lines& lines = work.columns;
        load_columns();
        bar_sync(0, lines.threads);
        multiply<false, ROW_TILES>(lines, parts, work.down[0], sums);
        store_size();
        if (work.order.passes < 3) return;
        // All warps have read the lines; the signs overwrite the high parts.
        bar_sync(0, lines.threads);
        const auto sign = [](float x) { return float(x > 0) - float(x < 0); };
        for_each_pair<ROW_TILES>(lines, sums, [&](int line, int half, int i, float a, float b) {
            const int word = half * lines.half + i / 8 * lines.plane + 4 * line + i % 8 / 2;
            parts.store(word, pack_half2(sign(a), sign(b)));
        });
        bar_sync(0, lines.threads);
        multiply<true, ROW_TILES>(lines, parts, work.down[1], sums);
        stage<true, ROW_TILES>(lines, parts, sums);
        store_columns();
    }

    __device__ void store_size() const {
        const int64_t before = int64_t(group()) * work.order.down + block();
        const int64_t at = before * work.columns.threads + threadIdx.x;
        if (!Part<ROW_TILES>(work.columns).works) return work.partial.store(at, 0);
        // Padding lines and coefficients are 0.
        float size = 0;
#pragma unroll
        for (int i = 0; i < 16 * ROW_TILES; ++i) size += fabsf(sums[i / 16][i / 4 % 4][i % 4]);
        work.partial.store(at, size);
    }
    __device__ int column_count() const { return count(work.columns, work.w); }
    // The column that is this thread's line, starting at its first number.
    __device__ Global<float> column() const {
        const int row = work.columns.column_of_thread();
        const int line = first(work.columns) + (row < column_count() ? row : 0);
        const int strip = line / work.w, x = line - strip * work.w;
        return view(work.between, slot() + int64_t(strip) * work.area + x, work.area - x);
    }
    __device__ void load_columns() const {
        const Lines& lines = work.columns;
        const auto in = column();
        split_columns(lines, column_count(), parts, [&](int, int i) -> EvenOdd {
            const float near = i < lines.even ? load_l2(in, i * work.w) : 0;
            const float far = i < lines.odd ? load_l2(in, (lines.n - 1 - i) * work.w) : 0;
            return {near + far, near - far};
        });
    }
    __device__ void store_columns() const {
        const Lines& lines = work.columns;
        const int row = lines.column_of_thread(), step = lines.threads >> lines.row_bits;
        if (row >= column_count()) return;
        const auto out = column();
        for (int i = threadIdx.x >> lines.row_bits; i < lines.even; i += step) {
            const float even = staged(i * lines.place_pitch + row);
            const float odd = staged((lines.padded + i) * lines.place_pitch + row);
            out.store(i * work.w, even + odd);
            if (i < lines.odd) out.store((lines.n - 1 - i) * work.w, even - odd);
        }
    }

    // Transforms rows of coefficients back, times `scale`.
    __device__ void back() {
        const Lines& lines = work.rows;
        const auto in = row_view(work.between, slot());
        split_lines<ROW_TILES>(lines, row_count(), parts, [&](int row, int i) -> EvenOdd {
            const int at = row * lines.n + i;
            return {
                i < lines.even ? load_l2(in, at) : 0,
                i < lines.odd ? load_l2(in, at + lines.even) : 0};
        });
        bar_sync(0, lines.threads);
        multiply<false, ROW_TILES>(lines, parts, work.across[1], sums);
        stage<false, ROW_TILES>(lines, parts, sums);
        const auto to = row_view(work.gradient, start());
        for_each_staged(lines, row_count(), lines.even, [&](int row, int i) {
            const float even = staged(row * lines.line_pitch + i);
            const float odd = staged(row * lines.line_pitch + lines.padded + i);
            T value;
            from_float(value, (even + odd) * work.scale);
            store_once(to, row * lines.n + i, value);
            if (i >= lines.odd) return;
            from_float(value, (even - odd) * work.scale);
            store_once(to, row * lines.n + lines.n - 1 - i, value);
        });
    }

    __device__ float staged(int i) const { return parts.as<float>().load(i); }

    // Calls run(row, i) for the first `places` places of `count` lines; neighbouring lanes have
    // neighbouring places.
    template <typename Run>
    __device__ static void for_each_staged(const Lines& lines, int count, int places, Run run) {
        const int bits = places >= 32 ? 5 : 3, lanes = 1 << bits, step = lines.threads >> bits;
        for (int i = threadIdx.x & (lanes - 1); i < places; i += lanes) {
#pragma unroll 4
            for (int row = threadIdx.x >> bits; row < count; row += step) run(row, i);
        }
    }
};

}  // namespace espan::dct
