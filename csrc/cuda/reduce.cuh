// Sums and maxima over the lanes of a warp and the warps of a block, in orders that are fixed: the same bits in every
// run. All threads of the warp, or of the block, take part.
#pragma once
#include <math.h>

#include "platform.h"

namespace fastrw::gpu {
constexpr int LANES = 32, WARPS = 8, THREADS = WARPS * LANES;
constexpr unsigned ALL = 0xffffffffu;

__device__ __forceinline__ int lane() { return threadIdx.x % LANES; }
__device__ __forceinline__ int warp() { return threadIdx.x / LANES; }

struct Add {
  __device__ __forceinline__ static float of(float x, float y) { return x + y; }
};
struct Max {
  __device__ __forceinline__ static float of(float x, float y) { return fmaxf(x, y); }
};

// Over groups of `lanes` adjacent lanes, a power of 2; the result in each of them.
template <class OP = Add> __device__ __forceinline__ float over_lanes(float x, int lanes = LANES) {
  for (int half = lanes / 2; half; half /= 2) x = OP::of(x, __shfl_xor_sync(ALL, x, half));
  return x;
}

// Over the block; the result in every thread.
template <class OP = Add, int COUNT> __device__ __forceinline__ float over_block(float x, float (&parts)[COUNT]) {
  x = over_lanes<OP>(x);
  __syncthreads();  // what was in parts before has been read
  if (lane() == 0) parts[warp()] = x;
  __syncthreads();
  x = parts[0];
#pragma unroll
  for (int w = 1; w < COUNT; ++w) x = OP::of(x, parts[w]);
  return x;
}

// Sums of 32 values over 32 lanes in 31 shuffles, the sum of value l in sums[0] of lane l: each step halves the values
// and doubles the lanes summed. A template, since a loop over HALF leaves the values in local memory.
template <int HALF = LANES / 2> __device__ __forceinline__ void fold(float (&sums)[LANES]) {
  const bool upper = threadIdx.x & HALF;
#pragma unroll
  for (int i = 0; i < HALF; ++i) {
    const float kept = upper ? sums[i + HALF] : sums[i], given = upper ? sums[i] : sums[i + HALF];
    sums[i] = kept + __shfl_xor_sync(ALL, given, HALF);
  }
  if constexpr (HALF > 1) fold<HALF / 2>(sums);
}
}  // namespace fastrw::gpu
