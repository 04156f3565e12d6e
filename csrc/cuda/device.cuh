// What kernel texts use of the GPU. Each function has two bodies, CUDA and the host model, side by
// side in the files included here; nothing else has threadIdx or asm.
#pragma once

#include "conversions.cuh"
#include "elements.cuh"
#include "platform.cuh"
#include "ptx/async_copy.cuh"
#include "ptx/barrier.cuh"
#include "ptx/bits.cuh"
#include "ptx/bulk_copy.cuh"
#include "ptx/cluster.cuh"
#include "ptx/matrix_load.cuh"
#include "ptx/mbarrier.cuh"
#include "ptx/memory_order.cuh"
#include "ptx/mma.cuh"
#include "ptx/position.cuh"
#include "ptx/proxy_fence.cuh"
#include "ptx/register_budget.cuh"
#include "ptx/shared_memory.cuh"
#include "ptx/swizzle.cuh"
#include "ptx/tensor_copy.cuh"
#include "ptx/warp.cuh"
#include "ptx/wgmma.cuh"
