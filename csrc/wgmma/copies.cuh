// The warps that copy: rows of the input and of the gate into shared memory, rows of output back.
#pragma once

#include "wgmma/strip.cuh"

namespace espan::wgmma_rows {

// Columns [first, end) of a ring's row that lie in the image, if column 0 is image column `left`.
struct Columns {
    int first, end;

    __device__ Columns(int left, int columns, int width)
        : first(max(-left, 0)), end(min(columns, width - left)) {}
};

// The warp zeroes columns [first, end) of each plane of a row.
template <int PLANES>
__device__ inline void zero(Address row, int first, int end) {
    for (int plane = 0; plane < PLANES; ++plane) {
#pragma unroll 1
        for (int c = first + lane_id(); c < end; c += 32) {
            store_shared(row + plane * PLANE + c * PIXEL, uint4{0, 0, 0, 0});
        }
    }
}

// One thread starts copying columns of row y of image n, into planes of PITCH bytes; `full` counts.
template <int PLANES, int PITCH>
__device__ inline void load_row(
    const Work& work, Global<const uint4> from, Address row, Address full, int64_t n, int y,
    int left, Columns columns) {
    const int bytes = (columns.end - columns.first) * PIXEL;
    mbarrier_arrive_expecting(full, PLANES * bytes);
    int64_t pixel = n * PLANES * work.area + int64_t(y) * work.cut.width + left + columns.first;
    for (int plane = 0; plane < PLANES; ++plane, pixel += work.area) {
        bulk_load(row + plane * PITCH + columns.first * PIXEL, from, pixel, bytes, full);
    }
}

// A warp: the rows of x that the items need, zeros outside of the image.
template <class S, int CONVS>
__device__ inline void load_input(const Work& work, Rings<S> rings) {
    Writer writer(rings.input());
    for (int64_t k = blockIdx.x; k < work.cut.items; k += gridDim.x) {
        const Item it = item(work.cut, k);
        const int left = int(it.strip) * S::USEFUL - CONVS;
        const Columns inside(left, RING_COLUMNS, work.cut.width);
        for (int y = it.top - CONVS; y < it.top + it.rows + CONVS; ++y) {
            writer.wait();
            if (unsigned(y) >= unsigned(work.cut.height)) {
                zero<S::PLANES>(writer.data(), 0, RING_COLUMNS);
                writer.hand_on();
                continue;
            }
            zero<S::PLANES>(writer.data(), 0, inside.first);
            zero<S::PLANES>(writer.data(), inside.end, RING_COLUMNS);
            fence_async();
            warp_sync();
            if (lane_id() == 0) {
                load_row<S::PLANES, PLANE>(
                    work, work.x, writer.data(), writer.full(), it.n, y, left, inside);
            }
            writer.step();
        }
    }
}

// One thread: the gate of each row of output, from column HALO of the strip on.
template <class S>
__device__ inline void load_gate(const Work& work, Rings<S> rings) {
    Writer writer(rings.gate());
    for (int64_t k = blockIdx.x; k < work.cut.items; k += gridDim.x) {
        const Item it = item(work.cut, k);
        const int left = int(it.strip) * S::USEFUL;
        const Columns inside(left, S::USEFUL, work.cut.width);
        for (int y = it.top; y < it.top + it.rows; ++y) {
            writer.wait();
            load_row<S::PLANES, NARROW_PLANE>(
                work, work.gate, writer.data() + S::HALO * PIXEL, writer.full(), it.n, y, left,
                inside);
            writer.step();
        }
    }
}

// One thread: the rows of output, of each strip the columns that are right.
template <class S>
__device__ inline void store_output(const Work& work, Rings<S> rings) {
    Reader reader(rings.output());
    for (int64_t k = blockIdx.x; k < work.cut.items; k += gridDim.x) {
        const Item it = item(work.cut, k);
        const int left = int(it.strip) * S::USEFUL;
        const int bytes = min(S::USEFUL, work.cut.width - left) * PIXEL;
        const int64_t first = it.n * S::PLANES * work.area + left;
        for (int y = it.top; y < it.top + it.rows; ++y) {
            reader.wait();
            int64_t pixel = first + int64_t(y) * work.cut.width;
            Address row = reader.data() + S::HALO * PIXEL;
            for (int plane = 0; plane < S::PLANES; ++plane) {
                bulk_store(work.out, pixel, row, bytes);
                pixel += work.area;
                row += NARROW_PLANE;
            }
            bulk_commit();
            bulk_wait_read<0>();
            mbarrier_arrive(reader.empty());
            reader.step();
        }
    }
}

}  // namespace espan::wgmma_rows
