// tail_wgmma: from feature maps to the upscaled image in one kernel, with wgmma on sm_90a.
//
// As in tail.cu, a block streams strips of 60 columns, row by row. One warpgroup computes
// h = conv3x3(x) + the 1x1 convolutions + bias, as in wgmma/rows.cuh; the products of the 1x1
// inputs belong to the finished row and have separate sums. Another convolves h to pixels. Four
// warps load rows, one per input; the last input may have a single plane, such as an image.
// The first warpgroup also tracks the largest input magnitude.
#include "tail_pixels.cuh"
#include "wgmma/copies.cuh"
#include "wgmma/epilogue.cuh"

namespace espan {
namespace {

using namespace wgmma_rows;

constexpr int PLANES = 4, SUMS = 4 * PLANES;
constexpr int HALO = ends::EDGE, USEFUL = ends::USEFUL;
constexpr int MAX_SINGLES = 3, THREADS = 3 * WARPGROUP;
constexpr int REGISTERS = 208, COPYING = 40;
constexpr int STAGED = 1;  // the named barrier of the warps that write pixels

// Weights of a 1x1 convolution: (2 groups of 16 input channels, 2 halves, 4 output planes, 8, 8).
constexpr int SINGLE_STEPS = PLANES / 2, SINGLE_HALF = PLANES * 128;
constexpr int SINGLE_BYTES = SINGLE_STEPS * 2 * SINGLE_HALF;

template <int SCALE, int SINGLES>
struct Sizes {
    static constexpr int GROUPS = 2 * ends::out_planes(SCALE);  // of 8 channels of pixels
    using Wide = Weights<PLANES, PLANES>;
    using Up = Weights<PLANES, GROUPS>;
    using Stage = ends::Stage<SCALE, GROUPS, 1>;
    using Input = Ring<4, PLANES * PLANE>;
    using Single = Ring<3, PLANES * NARROW_PLANE>;
    using Hidden = Ring<3, PLANES * PLANE>;

    // Offsets in shared memory.
    static constexpr int SINGLE_WEIGHTS = Wide::BYTES;
    static constexpr int UP_WEIGHTS = SINGLE_WEIGHTS + SINGLES * SINGLE_BYTES;
    static constexpr int WEIGHTS = UP_WEIGHTS + Up::BYTES;
    static constexpr int SINGLE = WEIGHTS + Input::DATA_BYTES;
    static constexpr int HIDDEN = SINGLE + SINGLES * Single::DATA_BYTES;
    static constexpr int LOADED = HIDDEN + Hidden::DATA_BYTES;  // the barrier of the weights
    static constexpr int INPUT_BARRIERS = LOADED + 8;
    static constexpr int SINGLE_BARRIERS = INPUT_BARRIERS + Input::BARRIER_BYTES;
    static constexpr int HIDDEN_BARRIERS = SINGLE_BARRIERS + SINGLES * Single::BARRIER_BYTES;
    static constexpr int BYTES = HIDDEN_BARRIERS + Hidden::BARRIER_BYTES;
    static_assert(BYTES + 2 * 16 * Stage::VECTORS <= 227 << 10);

    __device__ static Input input(Address start) {
        return {start + WEIGHTS, start + INPUT_BARRIERS};
    }
    __device__ static Single single(Address start, int i) {
        return {start + SINGLE + i * Single::DATA_BYTES,
                start + SINGLE_BARRIERS + i * Single::BARRIER_BYTES};
    }
    __device__ static Hidden hidden(Address start) {
        return {start + HIDDEN, start + HIDDEN_BARRIERS};
    }
};

struct TailWork {
    Global<const uint4> x;                     // (n, 4, h, w) pixels of 8 halves
    Global<const uint4> singles[MAX_SINGLES];  // the same
    Constant<const uint4> weights;             // in shared-memory order
    Constant<const float2> biases;             // (16), then (8 * out_planes)
    Global<bool> trusted;                      // (1), or null
    int limit;
    FeatureMaps maps;
    ends::OutputImage to;
};

// The 1x1 convolutions that accompany the 3x3 one of x: their input row has the position of the row
// of h that a row of x finishes. The last input has LAST planes. Tracks input magnitudes.
template <class S, int SINGLES, int LAST>
struct Singles {
    Reader<typename S::Single> rings[SINGLES];
    Address weights;
    uint32_t halves[SINGLES][PLANES][2] = {};
    float acc[SUMS] = {};
    uint32_t most = 0;  // the largest magnitudes so far
    const int place = matrix_row(PLANE) + PIXEL, narrow = matrix_row(NARROW_PLANE);

    __device__ void track(const uint32_t (&pairs)[PLANES][2]) {
#pragma unroll
        for (int i = 0; i < 2 * PLANES; ++i) most = max_magnitudes(most, pairs[i / 2][i % 2]);
    }

    __device__ void load(bool finishes, Address row) {
        Pairs<PLANES> x;
        load_pairs<PLANE>(x, row + place);
        track(x);
#pragma unroll
        for (int s = 0; s < SINGLES && finishes; ++s) {
            rings[s].wait();
            if (s < SINGLES - 1 || LAST == PLANES) {
                load_pairs<NARROW_PLANE>(halves[s], rings[s].data() + narrow);
            } else {
                load_pairs<NARROW_PLANE>(
                    reinterpret_cast<Pairs<LAST>&>(halves[s]), rings[s].data() + narrow);
            }
            rings[s].free();
            track(halves[s]);
        }
        hold(acc);
        wgmma_fence();
    }

    // Runs also when no row is finished; that result is not stored.
    __device__ void multiply() {
#pragma unroll
        for (int i = 0; i < (SINGLES - 1) * SINGLE_STEPS + (LAST + 1) / 2; ++i) {
            const auto* pairs = &halves[i / SINGLE_STEPS][i % SINGLE_STEPS * 2];
            const uint32_t a[4] = {pairs[0][0], pairs[0][1], pairs[1][0], pairs[1][1]};
            const Matrix b{weights + i * 2 * SINGLE_HALF, SINGLE_HALF};
            wgmma(acc, a, b.descriptor());
        }
    }

    __device__ void add(float (&sum)[SUMS]) {
        hold(acc);
#pragma unroll
        for (int i = 0; i < SUMS; ++i) {
            float more;
            take(more, acc[i], 0);
            sum[i] += more;
        }
    }
};

template <class S, int SINGLES, int LAST>
__device__ inline void sum_up(const TailWork& work, Address start) {
    auto singles = [&] {
        if constexpr (SINGLES == 2) {
            return Singles<S, 2, LAST>{{Reader(S::single(start, 0)), Reader(S::single(start, 1))}};
        } else {
            return Singles<S, 3, LAST>{
                {Reader(S::single(start, 0)), Reader(S::single(start, 1)),
                 Reader(S::single(start, 2))}};
        }
    }();
    singles.weights = start + S::SINGLE_WEIGHTS;
    HiddenRows<Epilogue::none, typename S::Hidden> hidden{Writer(S::hidden(start))};
    convolve_rows<typename S::Wide>(
        work.maps.cut, {USEFUL, HALO, 2}, Reader(S::input(start)), start, work.biases, singles,
        hidden);
    const int most = max(singles.most & 0xffff, singles.most >> 16);
    if (work.trusted.data && most > work.limit) {
        wait_for_earlier_kernels();
        work.trusted.store(0, false);
    }
}

// Where pixels go: through shared memory into the image.
template <class S>
struct PixelRows {
    typename S::Stage stage;
    int width;

    __device__ void begin(const Item& it) { stage.begin(it, width); }
    __device__ void prepare() {}
    template <int SUMS>
    __device__ void store(const float (&sum)[SUMS], const Finished&) {
        stage.put(0, reinterpret_cast<const float(&)[1][S::GROUPS][4]>(sum));
        bar_sync(STAGED, WARPGROUP);
        stage.write(warp_of_group());
        stage.swap();
    }
    __device__ void publish() {}
};

template <class S>
__device__ inline void upscale(const TailWork& work, Address start, Shared<uint4> memory) {
    wait_for_earlier_kernels();
    NoExtra none;
    PixelRows<S> pixels{{work.to, memory, 0, 16 * warp_of_group()}, work.maps.cut.width};
    convolve_rows<typename S::Up>(
        work.maps.cut, {USEFUL, HALO, 1}, Reader(S::hidden(start)), start + S::UP_WEIGHTS,
        work.biases.from(SUMS), none, pixels);
}

template <int SCALE, int SINGLES, int LAST>
__global__ void __launch_bounds__(THREADS, 1) tail_wgmma_kernel(TailWork work) {
    using S = Sizes<SCALE, SINGLES>;
    SHARED(uint4, pixels, 2 * S::Stage::VECTORS);
    SHARED_BYTES(start, S::BYTES);
    const Address loaded = start + S::LOADED;
    let_next_kernel_start();
    if (threadIdx.x == 0) {
        S::input(start).init(1, WARPGROUP_WARPS);
        for (int i = 0; i < SINGLES; ++i) S::single(start, i).init(1, WARPGROUP_WARPS);
        S::hidden(start).init(WARPGROUP_WARPS, WARPGROUP_WARPS);
        load_weights(start, work.weights, S::WEIGHTS, loaded);
    }
    bar_sync(0, THREADS);
    const int role = warp_uniform(threadIdx.x / WARPGROUP);
    if (role == 2) {
        give_registers<COPYING>();
        wait_for_earlier_kernels();
        const int i = warp_of_group() - 1;
        if (i < 0) {
            load_rows<PLANES, PLANE>(
                work.maps, work.x, S::input(start), USEFUL, HALO + 1, 2);
        } else if (i < SINGLES - 1) {
            load_rows<PLANES, NARROW_PLANE>(
                work.maps, work.singles[i], S::single(start, i), USEFUL, HALO, 1);
        } else if (i == SINGLES - 1) {
            load_rows<LAST, NARROW_PLANE>(
                work.maps, work.singles[i], S::single(start, i), USEFUL, HALO, 1);
        }
        return;
    }
    take_registers<REGISTERS>();
    wait_past(loaded, 0, "the weights");
    if (role == 0) {
        sum_up<S, SINGLES, LAST>(work, start);
    } else {
        upscale<S>(work, start, pixels);
    }
}

template <int SCALE, int SINGLES, int LAST>
cudaError_t launch_as(const TailWork& work, int64_t blocks, bool overlap, cudaStream_t stream) {
    return launch_overlapping(
        tail_wgmma_kernel<SCALE, SINGLES, LAST>, blocks, THREADS, Sizes<SCALE, SINGLES>::BYTES,
        overlap, stream, work);
}

template <int SCALE>
auto launcher(int singles, int last) {
    return singles == 3   ? launch_as<SCALE, 3, PLANES>
           : last == PLANES ? launch_as<SCALE, 2, PLANES>
                            : launch_as<SCALE, 2, 1>;
}

}  // namespace

cudaError_t tail_wgmma(const TailWgmmaParams& p, cudaStream_t stream) {
    const bool uint8 = p.dtype == Dtype::uint8;
    const int scale = p.scale, groups = 2 * ends::out_planes(scale);
    if (p.singles < 2 || p.singles > MAX_SINGLES || scale < 2 || scale > 4 ||
        !(uint8 || p.dtype == Dtype::float16) ||
        !(p.last_planes == PLANES || (p.last_planes == 1 && p.singles == 2))) {
        return cudaErrorInvalidValue;
    }
    int64_t processors = 0;
    if (const auto error = count_processors(processors)) return error;
    const Cut parts = cut(p.n, p.h, p.w, USEFUL, 2, processors);
    if (!fits(p.h, p.w, parts)) return cudaErrorInvalidValue;
    const int64_t pixels = p.n * p.h * p.w * PLANES;
    const auto maps = [&](const void* data, bool is_last = false) {
        const int64_t count = is_last ? pixels / PLANES * p.last_planes : pixels;
        return Global<const uint4>(static_cast<const uint4*>(data), count);
    };
    const int64_t weights = 15 * 8 * PLANES * (PLANES + groups) + p.singles * SINGLE_BYTES / 16;
    const TailWork work{
        maps(p.x),
        {maps(p.single[0]), maps(p.single[1], p.singles == 2), maps(p.single[2], true)},
        {static_cast<const uint4*>(p.weights), weights},
        {static_cast<const float2*>(p.biases), SUMS + 4 * groups},
        {static_cast<bool*>(p.trusted), 1},
        p.limit,
        {p.h * p.w, parts},
        {p.out, uint8, p.out_layout, p.n, scale * p.h, scale * p.w, scale, p.clamp}};
    const auto launch_it = scale == 2   ? launcher<2>(p.singles, p.last_planes)
                           : scale == 3 ? launcher<3>(p.singles, p.last_planes)
                                        : launcher<4>(p.singles, p.last_planes);
    return launch_it(work, std::min(parts.items, processors), p.overlap, stream);
}

}  // namespace espan
