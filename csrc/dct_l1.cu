// dct_l1: the sum of the absolute DCT coefficients of an image, and the gradient of their mean.
//
// Three passes: transform the rows; transform the columns, and the signs of the coefficients back
// along the columns; transform the rows back. One kernel computes all of them: its thread blocks
// take items of any pass (dct_l1_order.cuh), so that one block loads or stores while the other one
// on its multiprocessor multiplies. Between passes, groups of strips are in a ring buffer that fits
// in L2, each number at its place in the strip; in a row, even coefficients precede odd ones.
#include <algorithm>

#include "common/cut.cuh"
#include "dct_l1_passes.cuh"

namespace espan {
namespace {

using namespace dct;

// Lines of up to 256 numbers: 64 per warp, 8 warps, two blocks per multiprocessor. Longer lines: 32
// per warp, 16 warps, one block.
constexpr int MAX_TILES = 4, LONG_TILES = 2, LONG = 256;
constexpr int MAX_GROUPS = 1 << 16;  // tickets fit in 31 bits
__host__ __device__ constexpr int threads_of(int row_tiles) {
    return row_tiles == MAX_TILES ? 256 : 512;
}
__host__ __device__ constexpr int blocks_of(int row_tiles) {
    return row_tiles == MAX_TILES ? 2 : 1;
}

template <typename T, int ROW_TILES>
__global__ void __launch_bounds__(threads_of(ROW_TILES), blocks_of(ROW_TILES))
dct_kernel(Work<T> work) {
    constexpr int THREADS = threads_of(ROW_TILES);
    DYNAMIC_SHARED(uint32_t, parts, work.words);
    SHARED(int, task, 4);
    if (threadIdx.x == 0) {
        task.store(0, Task::NOTHING);
        task.store(2, 0);
    }
    for (;;) {
        // The whole block has stored the previous task and no longer reads shared memory.
        bar_sync(0, THREADS);
        if (threadIdx.x == 0) {
            work.order.done(work.counts, task.load(0), task.load(2));
            const Task taken = work.order.take(work.counts);
            task.store(0, taken.pass);
            task.store(1, taken.block);
            task.store(2, taken.group);
            task.store(3, taken.slot);
        }
        bar_sync(0, THREADS);
        Group<T, ROW_TILES> group{work, parts, task};
        switch (load_again(task, 0)) {
            case 0: group.across(); break;
            case 1: group.down(); break;
            case 2: group.back(); break;
            case Task::END: return;
        }
    }
}

// How strips of (h, w), in blocks of (h, block_w), are divided.
struct Shares {
    int tiles, threads;
    Lines rows, columns;
    int together;  // strips per group
    int64_t groups;

    Shares(int64_t strips, int64_t h, int64_t w, int64_t block_w)
        : tiles(std::max(h, block_w) > LONG ? LONG_TILES : MAX_TILES),
          threads(threads_of(tiles)),
          rows(int(block_w), tiles, threads),
          columns(int(h), tiles, threads) {
        together = int(std::min(strips, std::max<int64_t>(1, Order::NUMBERS / (h * w))));
        groups = ceil_div<int64_t>(strips, together);
    }
    Order order(int64_t h, int64_t w, int passes) const {
        return {
            int(groups), rows.blocks(together * (h * w / rows.n)), columns.blocks(together * w),
            passes};
    }
};

// The largest shared memory of any line length, in bytes.
template <int ROW_TILES>
int max_bytes() {
    static const int bytes = [] {
        int words = 0;
        for (int n = 4; n <= (ROW_TILES == MAX_TILES ? LONG : 512); ++n) {
            words = std::max(words, Lines(n, ROW_TILES, threads_of(ROW_TILES)).words);
        }
        return 4 * words;
    }();
    return bytes;
}

template <typename T, int ROW_TILES>
cudaError_t launch_as(const Work<T>& work, cudaStream_t stream) {
    int64_t processors = 0;
    if (const auto error = count_processors(processors)) return error;
    const int64_t blocks = std::min<int64_t>(work.order.tickets, blocks_of(ROW_TILES) * processors);
    return launch_with_shared(
        dct_kernel<T, ROW_TILES>, blocks, threads_of(ROW_TILES), 4 * work.words,
        max_bytes<ROW_TILES>(), stream, work);
}

}  // namespace

DctScratch dct_l1_scratch(int64_t strips, int64_t h, int64_t w, int64_t block_w) {
    const Shares shares(strips, h, w, block_w);
    const Order order = shares.order(h, w, 3), without_gradient = shares.order(h, w, 2);
    return {
        std::max(order.ring, without_gradient.ring) * shares.together * h * w,
        shares.groups * order.down * shares.threads, Order::counts(shares.groups)};
}

cudaError_t dct_l1(const DctL1Params& p, cudaStream_t stream) {
    return with_type(p.dtype, [&](auto zero) -> cudaError_t {
        using T = decltype(zero);
        const Shares shares(p.strips, p.h, p.w, p.block_w);
        const Order order = shares.order(p.h, p.w, p.gradient ? 3 : 2);
        if (shares.groups > MAX_GROUPS) return cudaErrorInvalidValue;
        const int64_t size = p.strips * p.h * p.w;
        const auto matrix = [](const void* both, const Lines& lines, int which) {
            const int64_t lanes = 2 * lines.half_lanes;
            return Global(static_cast<const uint4*>(both) + which * lanes, lanes);
        };
        const Lines &rows = shares.rows, &columns = shares.columns;
        const DctScratch scratch = dct_l1_scratch(p.strips, p.h, p.w, p.block_w);
        const Work<T> work{
            {static_cast<const T*>(p.a), size},
            {static_cast<const T*>(p.b), size},
            {static_cast<float*>(p.between), scratch.between},
            {static_cast<float*>(p.partial), scratch.partial},
            {static_cast<T*>(p.gradient), p.gradient ? size : 0},
            {matrix(p.across, rows, 0), matrix(p.across, rows, 1)},
            {matrix(p.down, columns, 0), matrix(p.down, columns, 1)},
            {static_cast<unsigned*>(p.counts), scratch.counts},
            rows,
            columns,
            order,
            shares.together,
            int(p.strips - (shares.groups - 1) * shares.together),
            shares.together * p.h * p.w,
            int(p.h * p.w),
            int(p.h * p.w / p.block_w),
            int(p.w),
            std::max(rows.words, columns.words),
            p.scale};
        return shares.tiles == MAX_TILES ? launch_as<T, MAX_TILES>(work, stream)
                                          : launch_as<T, LONG_TILES>(work, stream);
    });
}

}  // namespace espan
