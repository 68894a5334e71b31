// w_i = max(s_i, 0) / sum_k max(s_k, 0), Eq. 8-9, by one block: dividing by the largest first keeps the sum finite. A
// score that is not finite gets weight 0.
#pragma once
#include "packs.cuh"
#include "reduce.cuh"

namespace fastrw::gpu {
constexpr int MANY_WARPS = 32, MANY_THREADS = MANY_WARPS * LANES;

template <class E>
__global__ void __launch_bounds__(MANY_THREADS) rectify_normalize_kernel(const E* s, float* w, int64_t n) {
  __shared__ float parts[MANY_WARPS];
  const auto rectified = [&](int64_t i) {
    const float x = widen(s[i]);
    return x > 0.f && x < INFINITY ? x : 0.f;
  };
  float top = 0.f, total = 0.f;
  for (int64_t i = threadIdx.x; i < n; i += MANY_THREADS) top = fmaxf(top, rectified(i));
  top = over_block<Max>(top, parts);
  top = top > 0.f ? top : 1.f;
  for (int64_t i = threadIdx.x; i < n; i += MANY_THREADS) total += rectified(i) / top;
  total = over_block(total, parts);
  total = total > 0.f ? total : 1.f;
  for (int64_t i = threadIdx.x; i < n; i += MANY_THREADS) w[i] = rectified(i) / top / total;
}

template <class E> void launch_rectify_normalize(const E* s, float* w, int64_t n, cudaStream_t stream) {
  if (n == 0) return;
  FASTRW_LAUNCH(rectify_normalize_kernel<E>, dim3(1), dim3(MANY_THREADS), stream, s, w, n);
}
}  // namespace fastrw::gpu
