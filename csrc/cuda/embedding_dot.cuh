// s_r = g_r . V[idx_r], 0 where idx_r is the padding. `lanes` adjacent threads, at most a warp, take a row.
#pragma once
#include "packs.cuh"
#include "reduce.cuh"

namespace fastrw::gpu {
template <class E, class F> struct Embedding {
  const void* idx;  // [r] of int64, or int32 where narrow
  const E* g;       // [r, q]
  const F* V;       // [v, q]
  float* s;         // [r]
  int64_t r, q, v;
  int64_t idx_stride, ldg, ldv, padding;
  bool narrow;
  int lanes;
};

template <class E, class F, bool WIDE>
__global__ void __launch_bounds__(THREADS) embedding_dot_kernel(const __grid_constant__ Embedding<E, F> use) {
  const int slots = THREADS / use.lanes, lane = threadIdx.x % use.lanes;
  const int64_t row = int64_t(blockIdx.x) * slots + threadIdx.x / use.lanes, r = min(row, use.r - 1);
  const int64_t at = r * use.idx_stride;
  const int64_t index = use.narrow ? static_cast<const int*>(use.idx)[at] : static_cast<const int64_t*>(use.idx)[at];
  const bool inside = index >= 0 && index < use.v;
  float sum = 0.f;
  if (inside && index != use.padding) {
    const int64_t step = use.lanes * PACK<E>;
    steps(0, step, step, use.q, [&](int64_t start, auto full) {
      constexpr bool FULL = decltype(full)::value;
      const auto gs = load_pack<WIDE, FULL>(use.g + r * use.ldg, start, use.q, lane, use.lanes);
      const auto vs = load_pack<WIDE, FULL, F, PACK<E>>(use.V + index * use.ldv, start, use.q, lane, use.lanes);
#pragma unroll
      for (int e = 0; e < PACK<E>; ++e) sum = fmaf(widen(gs.at[e]), widen(vs.at[e]), sum);
    });
  }
  sum = over_lanes(sum, use.lanes);
  // an index out of range cannot be refused without waiting for the GPU: its score says that it is none
  if (row < use.r && lane == 0) use.s[row] = inside || index == use.padding ? sum : NAN;
}

template <class E, class F> void launch_embedding_dot(Embedding<E, F> use, cudaStream_t stream) {
  if (use.r == 0) return;
  use.lanes = lanes_for<E>(use.q);
  const int64_t slots = THREADS / use.lanes;
  const dim3 grid(static_cast<unsigned>((use.r + slots - 1) / slots)), block(THREADS);
  if (wide(use.g, use.ldg) && wide(use.V, use.ldv))
    FASTRW_LAUNCH((embedding_dot_kernel<E, F, true>), grid, block, stream, use);
  else
    FASTRW_LAUNCH((embedding_dot_kernel<E, F, false>), grid, block, stream, use);
}
}  // namespace fastrw::gpu
