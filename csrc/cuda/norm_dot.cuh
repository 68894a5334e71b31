// s_i = sum g (x_hat V_gamma + V_beta), in two stages: `chunks` blocks an example, then their sums. A thread keeps its
// columns while it walks down the rows, so that V_gamma and V_beta stay in registers.
#pragma once
#include "norm.cuh"
#include "row_sums.cuh"

namespace fastrw::gpu {
template <class E, bool WIDE, bool CHANNELS>
__global__ void __launch_bounds__(THREADS) norm_dot_kernel(const __grid_constant__ Norm<E> use, const float* V_gamma,
                                                           const float* V_beta, float* partial, int chunks) {
  __shared__ float parts[WARPS];
  const int lane = threadIdx.x % use.lanes, slots = THREADS / use.lanes;
  const int64_t example = blockIdx.x / chunks, first = blockIdx.x % chunks * slots + threadIdx.x / use.lanes;
  float sum = 0.f;
  for (int start = 0; start < use.columns; start += use.lanes * PACK<E>) {
    float gamma[PACK<E>] = {}, beta[PACK<E>] = {};
    if constexpr (CHANNELS) {
#pragma unroll
      for (int e = 0; e < PACK<E>; ++e) {
        const int64_t c = column<WIDE, PACK<E>>(start, lane, use.lanes, e);
        if (c >= use.columns) continue;
        if (V_gamma) gamma[e] = V_gamma[c];
        if (V_beta) beta[e] = V_beta[c];
      }
    }
    walk<WIDE, CHANNELS>(use, example, start, first, int64_t(chunks) * slots,
                         [&](int64_t row, int e, float x, float g, const Stats& stats) {
                           const float shift = CHANNELS ? beta[e] : V_beta ? V_beta[row] : 0.f;
                           const float scale = CHANNELS ? gamma[e] : V_gamma ? V_gamma[row] : 0.f;
                           sum = fmaf(g, V_gamma ? fmaf(stats.normalized(x), scale, shift) : shift, sum);
                         });
  }
  sum = over_block(sum, parts);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// Blocks an example: two rows a thread, at most enough to fill a large GPU.
template <class E> int64_t norm_chunks(const Norm<E>& use) {
  const int64_t rows = 2 * slots(use);
  return std::max<int64_t>(1, std::min<int64_t>((use.rows + rows - 1) / rows, 2048 / std::max<int64_t>(1, use.n)));
}

// partial has room for n * chunks floats, and may be s where chunks is 1.
template <class E>
void launch_norm_dot(const Norm<E>& use, const float* V_gamma, const float* V_beta, float* partial, int64_t chunks,
                     float* s, cudaStream_t stream) {
  if (use.n == 0) return;
  with_layout(use, [&](auto wide, auto channels) {
    const dim3 grid(static_cast<unsigned>(use.n * chunks)), block(THREADS);
    FASTRW_LAUNCH((norm_dot_kernel<E, wide(), channels()>), grid, block, stream, use, V_gamma, V_beta, partial,
                  static_cast<int>(chunks));
  });
  if (partial != s) launch_row_sums(partial, s, use.n, chunks, stream);
}
}  // namespace fastrw::gpu
