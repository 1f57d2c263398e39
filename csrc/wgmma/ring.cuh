// Ring buffers of rows in shared memory, which pass rows between the roles of a block.
//
// Each slot has two mbarriers, for full and empty. Writer and Reader are the two ends of a ring:
// the current slot, and the parity of the phase to wait for.
#pragma once

#include "wgmma/wait.cuh"

namespace espan::wgmma_rows {

// Unlike lane_id(), computed once: these kernels have registers to keep it.
__device__ inline int lane() { return threadIdx.x % 32; }

// SLOTS rows of BYTES each. `full` and `empty`: the addresses of the first of SLOTS barriers each.
template <int SLOT_COUNT, int SLOT_BYTES>
struct Ring {
    static constexpr int SLOTS = SLOT_COUNT, BYTES = SLOT_BYTES;
    static constexpr int DATA_BYTES = SLOTS * BYTES, BARRIER_BYTES = 2 * SLOTS * 8;
    Address data, full, empty;

    __device__ Ring(Address data, Address barriers)
        : data(data), full(barriers), empty(barriers + SLOTS * 8) {}

    // Called by one thread. The numbers of arrivals that fill and empty a slot.
    __device__ void init(int writers, int readers) const {
        for (int i = 0; i < SLOTS; ++i) {
            mbarrier_init(full + 8 * i, writers);
            mbarrier_init(empty + 8 * i, readers);
        }
    }
};

template <class Ring>
struct End {
    Ring ring;
    int slot = 0;
    uint32_t parity;

    __device__ Address data() const { return ring.data + slot * Ring::BYTES; }
    __device__ Address full() const { return ring.full + slot * 8; }
    __device__ Address empty() const { return ring.empty + slot * 8; }
    __device__ void step() {
        if (++slot == Ring::SLOTS) {
            slot = 0;
            parity ^= 1;
        }
    }
};

// A new barrier is in phase 0, as if phase 1 had completed: all slots are empty.
template <class Ring>
struct Writer : End<Ring> {
    __device__ explicit Writer(Ring ring) : End<Ring>{ring, 0, 1} {}
    __device__ void wait() const { wait_past(this->empty(), this->parity, "an empty slot"); }
    // Marks the warp's part of the slot, written by ordinary stores, as full.
    __device__ void publish() {
        fence_async();
        warp_sync();
        if (lane() == 0) mbarrier_arrive(this->full());
        this->step();
    }
};

template <class Ring>
struct Reader : End<Ring> {
    __device__ explicit Reader(Ring ring) : End<Ring>{ring, 0, 0} {}
    __device__ void wait() const { wait_past(this->full(), this->parity, "a full slot"); }
    // Marks the slot as read by the warp.
    __device__ void free() {
        warp_sync();
        if (lane() == 0) mbarrier_arrive(this->empty());
        this->step();
    }
};

}  // namespace espan::wgmma_rows
