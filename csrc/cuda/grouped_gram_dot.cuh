// Scores and weights of a batch from the rows of all its linear uses, in two launches: the partial score of every row,
// then their sums by example and, in the block that comes last, the weights.
#pragma once
#include "gram_dot.cuh"
#include "rectify_normalize.cuh"
#include "row_sums.cuh"

namespace fastrw::gpu {
// partial [n, columns], *ticket 0 at the start. Which block is the last differs from run to run, what it does does not.
template <int COUNT>
__global__ void __launch_bounds__(COUNT* LANES)
    finish_kernel(const float* partial, int64_t columns, float* s, float* w, int64_t n, unsigned* ticket) {
  __shared__ float parts[COUNT];
  __shared__ bool last;
  const int64_t i = int64_t(blockIdx.x) * COUNT + warp();
  if (i < n) {
    const float sum = row_sum(partial + i * columns, columns);
    if (lane() == 0) s[i] = sum;
  }
  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) last = atomicAdd(ticket, 1u) == gridDim.x - 1;
  __syncthreads();
  if (!last) return;
  __threadfence();
  rectify_normalize(s, w, n, parts);
}

// partial has room for n * columns floats and the ticket.
template <class E, class HOW>
void launch_grouped_gram_dot(const std::vector<Entry>& uses, int64_t n, int64_t columns, float* partial, float* s,
                             float* w, cudaStream_t stream) {
  if (n == 0) return;
  unsigned* ticket = reinterpret_cast<unsigned*>(partial + n * columns);
  launch_gram_dot<E, HOW, USES>(uses, partial, columns, ticket, stream);
  const dim3 grid((n + WARPS - 1) / WARPS), block(THREADS);
  FASTRW_LAUNCH(finish_kernel<WARPS>, grid, block, stream, partial, columns, s, w, n, ticket);
}
}  // namespace fastrw::gpu
