// w_i = max(s_i, 0) / sum_k max(s_k, 0), Eq. 8-9, by one block: dividing by the largest first keeps the sum finite. A
// score that is not finite weighs 0.
#pragma once
#include "pieces.cuh"
#include "reduce.cuh"

namespace fastrw::gpu {
template <int COUNT, class E>
__device__ __forceinline__ void rectify_normalize(const E* s, float* w, int64_t n, float (&parts)[COUNT]) {
  const auto rectified = [&](int64_t i) {
    const float x = widen(from_l2(s + i));
    return x > 0.f && x < INFINITY ? x : 0.f;
  };
  float top = 0.f, total = 0.f;
  for (int64_t i = threadIdx.x; i < n; i += COUNT * LANES) top = fmaxf(top, rectified(i));
  top = over_block<Max>(top, parts);
  top = top > 0.f ? top : 1.f;
  for (int64_t i = threadIdx.x; i < n; i += COUNT * LANES) total += rectified(i) / top;
  total = over_block(total, parts);
  total = total > 0.f ? total : 1.f;
  for (int64_t i = threadIdx.x; i < n; i += COUNT * LANES) w[i] = rectified(i) / top / total;
}

constexpr int MANY_WARPS = 32;

template <class E>
__global__ void __launch_bounds__(MANY_WARPS* LANES) rectify_normalize_kernel(const E* s, float* w, int64_t n) {
  __shared__ float parts[MANY_WARPS];
  rectify_normalize(s, w, n, parts);
}

template <class E> void launch_rectify_normalize(const E* s, float* w, int64_t n, cudaStream_t stream) {
  if (n == 0) return;
  FASTRW_LAUNCH(rectify_normalize_kernel<E>, dim3(1), dim3(MANY_WARPS * LANES), stream, s, w, n);
}
}  // namespace fastrw::gpu
