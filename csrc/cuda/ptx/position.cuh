// Where a thread is: in its warp, its block, the grid.
#pragma once

#include "../platform.cuh"

#ifdef LOWBIT_HOST_MODEL
#include "../model/running.h"
#endif

namespace lowbit::cuda {

#ifdef LOWBIT_HOST_MODEL

LOWBIT_DEVICE uint32_t thread_index() { return model::self().index; }
LOWBIT_DEVICE uint32_t lane_index() { return model::self().lane; }
LOWBIT_DEVICE uint32_t block_index() { return model::block().index.x; }
LOWBIT_DEVICE uint32_t block_index_y() { return model::block().index.y; }
LOWBIT_DEVICE uint32_t block_index_z() { return model::block().index.z; }
LOWBIT_DEVICE uint32_t block_size() { return model::machine->block_size; }
LOWBIT_DEVICE uint32_t grid_size() { return model::machine->grid.x; }

#else

// Blocks are one-dimensional (launch.cuh).
LOWBIT_DEVICE uint32_t thread_index() { return threadIdx.x; }
LOWBIT_DEVICE uint32_t lane_index() { return threadIdx.x % 32; }
LOWBIT_DEVICE uint32_t block_index() { return blockIdx.x; }
LOWBIT_DEVICE uint32_t block_index_y() { return blockIdx.y; }
LOWBIT_DEVICE uint32_t block_index_z() { return blockIdx.z; }
LOWBIT_DEVICE uint32_t block_size() { return blockDim.x; }
LOWBIT_DEVICE uint32_t grid_size() { return gridDim.x; }

#endif

LOWBIT_DEVICE uint32_t warp_index() { return thread_index() / 32; }

}  // namespace lowbit::cuda
