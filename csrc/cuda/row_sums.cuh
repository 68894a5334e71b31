// The second stage of a sum: one warp adds up a row of the first stage's partial sums.
#pragma once
#include "reduce.cuh"

namespace fastrw::gpu {
__device__ __forceinline__ float row_sum(const float* row, int64_t columns) {
  float sum = 0.f;
  for (int64_t c = lane(); c < columns; c += LANES) sum += row[c];
  return over_lanes(sum);
}

template <int COUNT>
__global__ void __launch_bounds__(COUNT* LANES)
    row_sums_kernel(const float* partial, float* s, int64_t n, int64_t columns) {
  const int64_t i = int64_t(blockIdx.x) * COUNT + warp();
  if (i >= n) return;
  const float sum = row_sum(partial + i * columns, columns);
  if (lane() == 0) s[i] = sum;
}

// s_i = sum_c partial_ic: partial [n, columns] -> s [n]
inline void launch_row_sums(const float* partial, float* s, int64_t n, int64_t columns, cudaStream_t stream) {
  if (n == 0) return;
  FASTRW_LAUNCH(row_sums_kernel<WARPS>, dim3((n + WARPS - 1) / WARPS), dim3(THREADS), stream, partial, s, n, columns);
}
}  // namespace fastrw::gpu
