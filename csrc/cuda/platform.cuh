// Which world a kernel text is compiled for: CUDA, or the host model (LOWBIT_HOST_MODEL), in which
// a kernel is an ordinary function that the model in model/ runs for every thread of every block.
#pragma once

#include <cstdint>
#include <cstring>

#include "../host_device.h"

#ifdef LOWBIT_HOST_MODEL

#define LOWBIT_DEVICE inline
#define LOWBIT_KERNEL(...) void
#define LOWBIT_GRID_CONSTANT
#define LOWBIT_UNROLL

#elif defined(__CUDACC__)

#define LOWBIT_DEVICE __device__ __forceinline__
// Threads of a block at most, and, if given, blocks of a multiprocessor at least. No `inline`
// before it, which nvcc ignores with a warning: `static` for a kernel in a header that is no
// template.
#define LOWBIT_KERNEL(...) __global__ void __launch_bounds__(__VA_ARGS__)
#define LOWBIT_GRID_CONSTANT __grid_constant__
// Before loops over arrays that must stay in registers, where every index is a constant.
#define LOWBIT_UNROLL _Pragma("unroll")

#else
#error "kernel texts need nvcc, or LOWBIT_HOST_MODEL for the model of the GPU on the host"
#endif

// Instructions that only some architectures have. Code for the others stops the kernel there: texts
// need no conditions, and choosing a kernel that the device can run is left to its caller.
#ifndef LOWBIT_HOST_MODEL
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 890
#define LOWBIT_ASM_SM89(...) __trap()
#else
#define LOWBIT_ASM_SM89(...) asm volatile(__VA_ARGS__)
#endif
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
#define LOWBIT_ASM_SM90(...) __trap()
#else
#define LOWBIT_ASM_SM90(...) asm volatile(__VA_ARGS__)
#endif
#if defined(__CUDA_ARCH__) && !defined(__CUDA_ARCH_FEAT_SM90_ALL)
#define LOWBIT_ASM_SM90A(...) __trap()
#else
#define LOWBIT_ASM_SM90A(...) asm volatile(__VA_ARGS__)
#endif
#endif
