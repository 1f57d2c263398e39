// Warps that copy rows of feature maps into rings, and rows of a ring to memory.
#pragma once

#include "wgmma/strip.cuh"

namespace espan::wgmma_rows {

// Called by one thread after all other barriers are initialised. Starts copying the kernel's
// weights to `start`; barrier `loaded` tracks them.
__device__ inline void load_weights(
    Address start, Constant<const uint4> weights, int bytes, Address loaded) {
    mbarrier_init(loaded, 1);
    mbarrier_fence_init();
    mbarrier_arrive_expecting(loaded, bytes);
    bulk_load(start, weights, 0, bytes, loaded);
}

// The warp zeroes columns [first, end) in each plane of a row.
template <int PLANES, int PITCH>
__device__ inline void zero(Address row, int first, int end) {
#pragma unroll 1
    for (int plane = 0; plane < PLANES; ++plane) {
#pragma unroll 1
        for (int c = first + lane(); c < end; c += 32) {
            store_shared(row + plane * PITCH + c * PIXEL, uint4{0, 0, 0, 0});
        }
    }
}

// Called by a warp. Loads the rows of `from` for all items of a block, with `reach` more above and
// below each item, into planes of PITCH bytes that start `halo` columns left of a strip's `useful`
// ones. Zeros outside the image.
template <int PLANES, int PITCH, class Ring>
__device__ inline void load_rows(
    const FeatureMaps& maps, Global<const uint4> from, Ring ring, int useful, int halo, int reach) {
    const int width = maps.cut.width;
    Writer<Ring> writer(ring);
    for (int64_t k = blockIdx.x; k < maps.cut.items; k += gridDim.x) {
        const Item it = item(maps.cut, k);
        const int left = int(it.strip) * useful - halo;
        const int first = max(-left, 0), end = min(PITCH / PIXEL, width - left);  // in the image
        const int bytes = (end - first) * PIXEL;
        const bool is_edge = bytes < PITCH;
        for (int y = it.top - reach; y < it.top + it.rows + reach; ++y) {
            writer.wait();
            const Address row = writer.data();
            if (unsigned(y) >= unsigned(maps.cut.height)) {
                zero<PLANES, PITCH>(row, 0, PITCH / PIXEL);
                writer.publish();
                continue;
            }
            // Copies leave the columns outside of the image alone: once per slot is enough.
            if (is_edge && y < it.top - reach + Ring::SLOTS) {
                zero<PLANES, PITCH>(row, 0, first);
                zero<PLANES, PITCH>(row, end, PITCH / PIXEL);
                fence_async();
                warp_sync();
            }
            if (lane() == 0) {
                mbarrier_arrive_expecting(writer.full(), PLANES * bytes);
                int64_t pixel = it.n * PLANES * maps.area + int64_t(y) * width + left + first;
#pragma unroll
                for (int plane = 0; plane < PLANES; ++plane, pixel += maps.area) {
                    const Address to = row + plane * PITCH + first * PIXEL;
                    bulk_load(to, from, pixel, bytes, writer.full());
                }
            }
            writer.step();
        }
    }
}

// Called by one thread. Stores the `useful` columns of a ring's finished rows, starting at `halo`.
template <int PLANES, class Ring>
__device__ inline void store_rows(
    const FeatureMaps& maps, Global<uint4> to, Ring ring, int useful, int halo) {
    Reader<Ring> reader(ring);
    for (int64_t k = blockIdx.x; k < maps.cut.items; k += gridDim.x) {
        const Item it = item(maps.cut, k);
        const int left = int(it.strip) * useful;
        const int bytes = min(useful, maps.cut.width - left) * PIXEL;
        int64_t first = it.n * PLANES * maps.area + int64_t(it.top) * maps.cut.width + left;
        for (int y = 0; y < it.rows; ++y, first += maps.cut.width) {
            reader.wait();
            int64_t pixel = first;
#pragma unroll
            for (int plane = 0; plane < PLANES; ++plane, pixel += maps.area) {
                const Address from = reader.data() + plane * NARROW_PLANE + halo * PIXEL;
                bulk_store(to, pixel, from, bytes);
            }
            bulk_commit();
            bulk_wait_read<0>();
            mbarrier_arrive(reader.empty());
            reader.step();
        }
    }
}

}  // namespace espan::wgmma_rows
