// Functions that both hosts and devices run, in texts that any compiler reads.
#pragma once

#if defined(__CUDACC__)
#define LOWBIT_HOST_DEVICE __host__ __device__
#else
#define LOWBIT_HOST_DEVICE
#endif
