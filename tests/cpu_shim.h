// Makes edge/engines/cuda/kernels.cu plain C++: each kernel becomes a loop over blocks and threads. For tests only.
#pragma once
#include <cmath>
#include <cstdio>
#include <cstring>

#define __global__
#define __device__

struct Index {
    unsigned x, y, z;
};
static Index blockIdx, threadIdx, blockDim, gridDim;

static inline unsigned short half_of(float value)
{
    _Float16 half = (_Float16)value;
    unsigned short bits;
    std::memcpy(&bits, &half, sizeof bits);
    return bits;
}

static inline int atomicAdd(int* address, int value)
{
    int old = *address;
    *address += value;
    return old;
}

template <class Args>
static void run_kernel(void (*kernel)(Args), const unsigned* grid, const unsigned* block, const void* args)
{
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    for (blockIdx.z = 0; blockIdx.z < grid[2]; ++blockIdx.z)
        for (blockIdx.y = 0; blockIdx.y < grid[1]; ++blockIdx.y)
            for (blockIdx.x = 0; blockIdx.x < grid[0]; ++blockIdx.x)
                for (threadIdx.z = 0; threadIdx.z < block[2]; ++threadIdx.z)
                    for (threadIdx.y = 0; threadIdx.y < block[1]; ++threadIdx.y)
                        for (threadIdx.x = 0; threadIdx.x < block[0]; ++threadIdx.x) kernel(*(const Args*)args);
}

#define RUNNABLE(name, Args)                                                                     \
    extern "C" unsigned size_##name() { return sizeof(Args); }                                   \
    extern "C" void run_##name(const unsigned* grid, const unsigned* block, const void* args)    \
    {                                                                                            \
        run_kernel<Args>(name, grid, block, args);                                               \
    }
