// The gradients of an affine norm's weight and bias by example: sum_S g x_hat and sum_S g -> [n, C], [n, C].
#pragma once
#include "norm.cuh"

namespace fastrw::gpu {
// Columns are channels: a block takes one step of them, its slots rows; then the slots are added up.
template <class E, bool WIDE>
__global__ void __launch_bounds__(THREADS)
    norm_instance_columns(const __grid_constant__ Norm<E> use, float* gamma, float* beta) {
  __shared__ float parts[2][PACK<E>][THREADS];
  const int lanes = use.lanes, width = lanes * PACK<E>, tiles = (use.columns + width - 1) / width;
  const int64_t example = blockIdx.x / tiles;
  const int start = blockIdx.x % tiles * width;
  float sums[2][PACK<E>] = {};
  walk<WIDE, true>(use, example, start, threadIdx.x / lanes, THREADS / lanes,
                   [&](int64_t, int e, float x, float g, const Stats& stats) {
                     sums[0][e] = fmaf(g, stats.normalized(x), sums[0][e]);
                     sums[1][e] += g;
                   });
#pragma unroll
  for (int e = 0; e < PACK<E>; ++e) {
    parts[0][e][threadIdx.x] = sums[0][e];
    parts[1][e][threadIdx.x] = sums[1][e];
  }
  __syncthreads();
  for (int i = threadIdx.x; i < 2 * width; i += THREADS) {
    const int which = i / width, e = i % width / lanes, lane = i % lanes;
    const int64_t c = column<WIDE, PACK<E>>(start, lane, lanes, e);
    if (c >= use.columns) continue;
    float total = 0.f;
    for (int thread = lane; thread < THREADS; thread += lanes) total += parts[which][e][thread];
    (which ? beta : gamma)[example * use.columns + c] = total;
  }
}

// Columns are positions: `lanes` adjacent threads, at most a warp, take one channel.
template <class E, bool WIDE>
__global__ void __launch_bounds__(THREADS)
    norm_instance_rows(const __grid_constant__ Norm<E> use, float* gamma, float* beta) {
  const int lanes = use.lanes, slots = THREADS / lanes, tiles = (use.rows + slots - 1) / slots;
  const int64_t example = blockIdx.x / tiles, row = blockIdx.x % tiles * slots + threadIdx.x / lanes;
  float sums[2] = {0.f, 0.f};
  for (int start = 0; start < use.columns; start += lanes * PACK<E>)
    walk<WIDE, false>(use, example, start, row, use.rows, [&](int64_t, int, float x, float g, const Stats& stats) {
      sums[0] = fmaf(g, stats.normalized(x), sums[0]);
      sums[1] += g;
    });
  const float gamma_sum = over_lanes(sums[0], lanes), beta_sum = over_lanes(sums[1], lanes);
  if (row >= use.rows || threadIdx.x % lanes != 0) return;
  gamma[example * use.rows + row] = gamma_sum;
  beta[example * use.rows + row] = beta_sum;
}

template <class E> void launch_norm_instance(Norm<E> use, float* gamma, float* beta, cudaStream_t stream) {
  use.lanes = std::min(use.lanes, LANES);
  const int64_t size = use.channels ? use.lanes * PACK<E> : slots(use);
  const int64_t tiles = ((use.channels ? use.columns : use.rows) + size - 1) / size;
  if (use.n * tiles == 0) return;
  with_layout(use, [&](auto wide, auto channels) {
    const dim3 grid(static_cast<unsigned>(use.n * tiles)), block(THREADS);
    if constexpr (channels())
      FASTRW_LAUNCH((norm_instance_columns<E, wide()>), grid, block, stream, use, gamma, beta);
    else
      FASTRW_LAUNCH((norm_instance_rows<E, wide()>), grid, block, stream, use, gamma, beta);
  });
}
}  // namespace fastrw::gpu
