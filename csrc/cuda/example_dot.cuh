// s_i = <x_i, y_i>, in two stages: `chunks` blocks an example, then their sums.
#pragma once
#include <algorithm>

#include "packs.cuh"
#include "row_sums.cuh"

namespace fastrw::gpu {
template <class E, class F, bool WIDE>
__global__ void __launch_bounds__(THREADS)
    example_dot_kernel(const E* x, const F* y, int64_t ldx, int64_t ldy, int64_t columns, float* partial, int chunks) {
  __shared__ float parts[WARPS];
  constexpr int STEP = THREADS * PACK<E>;
  const int64_t example = blockIdx.x / chunks, chunk = blockIdx.x % chunks;
  float sum = 0.f;
  steps(chunk * STEP, int64_t(chunks) * STEP, STEP, columns, [&](int64_t start, auto full) {
    constexpr bool FULL = decltype(full)::value;
    const int thread = threadIdx.x;
    const auto xs = load_pack<WIDE, FULL>(x + example * ldx, start, columns, thread, THREADS);
    const auto ys = load_pack<WIDE, FULL, F, PACK<E>>(y + example * ldy, start, columns, thread, THREADS);
#pragma unroll
    for (int e = 0; e < PACK<E>; ++e) sum = fmaf(widen(xs.at[e]), widen(ys.at[e]), sum);
  });
  sum = over_block(sum, parts);
  if (threadIdx.x == 0) partial[blockIdx.x] = sum;
}

// Blocks an example: four steps each, at most enough to fill a large GPU.
template <class E> int64_t example_chunks(int64_t n, int64_t columns) {
  const int64_t of_block = 4 * THREADS * PACK<E>;
  return std::max<int64_t>(1, std::min((columns + of_block - 1) / of_block, 2048 / std::max<int64_t>(1, n)));
}

// partial has room for n * chunks floats, and may be s where chunks is 1.
template <class E, class F>
void launch_example_dot(const E* x, const F* y, int64_t ldx, int64_t ldy, int64_t n, int64_t columns, float* partial,
                        int64_t chunks, float* s, cudaStream_t stream) {
  if (n == 0) return;
  const dim3 grid(static_cast<unsigned>(n * chunks)), block(THREADS);
  const int each = static_cast<int>(chunks);
  if (wide(x, ldx) && wide(y, ldy))
    FASTRW_LAUNCH((example_dot_kernel<E, F, true>), grid, block, stream, x, y, ldx, ldy, columns, partial, each);
  else
    FASTRW_LAUNCH((example_dot_kernel<E, F, false>), grid, block, stream, x, y, ldx, ldy, columns, partial, each);
  if (partial != s) launch_row_sums(partial, s, n, chunks, stream);
}
}  // namespace fastrw::gpu
