// s_r = sum_k (a_r.a_k + bias)(g_r.g_k). A block takes 4 train rows. A warp takes their products with 8 validation
// rows, 32 sums a lane over its columns; folded over the lanes, lane l holds the product of train row l / 8 and
// validation row l % 8, of a and of g alike, so that only their product is ever summed over k. Orders are fixed: no
// atomics.
#pragma once
#include <stdint.h>
#include <string.h>

#include <algorithm>

#include "platform.h"

namespace fastrw::gram {
constexpr int ROWS = 4, VALS = 8, LANES = 32, WARPS = 8;
constexpr unsigned ALL = 0xffffffffu;
static_assert(ROWS * VALS == LANES, "one product a lane after folding");

template <class E> struct Side {  // of inputs, a and a_val or of gradients, g and g_val
  const E* x;                     // [r, columns] train rows, ldx apart
  const E* y;                     // [k, columns] validation rows, ldy apart
  int64_t ldx, ldy, columns;
  bool wide;  // whether every row starts at a multiple of 16 bytes
};

template <class E> struct Use {
  Side<E> inputs, gradients;
  float* s;  // [r]
  int64_t r, k;
  float bias;
  int share;  // warps that share the columns of one tile: 1, 2, 4 or 8
};

__device__ __forceinline__ float widen(float x) { return x; }
__device__ __forceinline__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
__device__ __forceinline__ float widen(__half x) { return __half2float(x); }

template <class E> constexpr int PIECE = 16 / sizeof(E);   // elements that a lane takes at once
template <class E> constexpr int STEP = LANES * PIECE<E>;  // elements that a warp takes at once

// This lane's piece of the row from `start` on, zero past its last column. Lanes take neighbours in one load of 16
// bytes, or else every 32nd element: a product may be summed in any order that both its rows share.
template <bool WIDE, class E>
__device__ __forceinline__ void load(const E* row, int64_t start, int64_t columns, float (&x)[PIECE<E>]) {
  const int lane = threadIdx.x % LANES;
  const int64_t first = start + (WIDE ? lane * PIECE<E> : lane);
  if (WIDE && first + PIECE<E> <= columns) {
    const uint4 bits = *reinterpret_cast<const uint4*>(row + first);
    E pieces[PIECE<E>];
    memcpy(pieces, &bits, sizeof bits);
#pragma unroll
    for (int e = 0; e < PIECE<E>; ++e) x[e] = widen(pieces[e]);
    return;
  }
#pragma unroll
  for (int e = 0; e < PIECE<E>; ++e) {
    const int64_t column = first + (WIDE ? e : e * LANES);
    x[e] = column < columns ? widen(row[column]) : 0.f;
  }
}

// Sums of 32 values over 32 lanes in 31 shuffles: each step halves the values and doubles the lanes summed.
template <int HALF> __device__ __forceinline__ void fold(float (&sums)[LANES]) {
  const bool upper = threadIdx.x & HALF;
#pragma unroll
  for (int i = 0; i < HALF; ++i) {
    const float kept = upper ? sums[i + HALF] : sums[i], given = upper ? sums[i] : sums[i + HALF];
    sums[i] = kept + __shfl_xor_sync(ALL, given, HALF);
  }
  if constexpr (HALF > 1) fold<HALF / 2>(sums);
}

// This lane's product x_row . y_k over the columns of this warp. Rows past the last repeat it; the caller drops them.
template <bool WIDE, class E>
__device__ __forceinline__ float product(const Side<E>& side, const Use<E>& use, int64_t row0, int64_t k0, int part) {
  float sums[LANES] = {};
  for (int64_t start = part * int64_t(STEP<E>); start < side.columns; start += use.share * int64_t(STEP<E>)) {
    float xs[ROWS][PIECE<E>];
#pragma unroll
    for (int i = 0; i < ROWS; ++i) load<WIDE>(side.x + min(row0 + i, use.r - 1) * side.ldx, start, side.columns, xs[i]);
#pragma unroll
    for (int v = 0; v < VALS; ++v) {
      float ys[PIECE<E>];
      load<WIDE>(side.y + min(k0 + v, use.k - 1) * side.ldy, start, side.columns, ys);
#pragma unroll
      for (int i = 0; i < ROWS; ++i) {
#pragma unroll
        for (int e = 0; e < PIECE<E>; ++e) sums[i * VALS + v] = fmaf(xs[i][e], ys[e], sums[i * VALS + v]);
      }
    }
  }
  fold<LANES / 2>(sums);
  return sums[0];
}

template <class E>
__device__ __forceinline__ float product(const Side<E>& side, const Use<E>& use, int64_t row0, int64_t k0, int part) {
  return side.wide ? product<true>(side, use, row0, k0, part) : product<false>(side, use, row0, k0, part);
}

template <class E>
__global__ void __launch_bounds__(WARPS* LANES) gram_dot_kernel(const __grid_constant__ Use<E> use) {
  __shared__ float parts[2][WARPS][LANES];
  const int warp = threadIdx.x / LANES, lane = threadIdx.x % LANES;
  const int team = warp / use.share, part = warp % use.share, teams = WARPS / use.share;
  const int64_t row0 = int64_t(blockIdx.x) * ROWS;
  float s = 0.f;
  for (int64_t tile = 0; tile * VALS < use.k; tile += teams) {  // the same count for every warp: barriers lie within
    const int64_t k0 = (tile + team) * VALS;
    float aa = 0.f, gg = 0.f;
    if (k0 < use.k) {
      aa = product(use.inputs, use, row0, k0, part);
      gg = product(use.gradients, use, row0, k0, part);
    }
    if (use.share > 1) {
      parts[0][warp][lane] = aa;
      parts[1][warp][lane] = gg;
      __syncthreads();
      aa = gg = 0.f;
      for (int w = team * use.share; w < (team + 1) * use.share; ++w) {
        aa += parts[0][w][lane];
        gg += parts[1][w][lane];
      }
      __syncthreads();
    }
    if (part == 0 && k0 + lane % VALS < use.k) s += (aa + use.bias) * gg;
  }
#pragma unroll
  for (int half = VALS / 2; half; half /= 2) s += __shfl_xor_sync(ALL, s, half);
  if (lane % VALS == 0) parts[0][warp][lane / VALS] = s;
  __syncthreads();
  if (threadIdx.x < ROWS && row0 + threadIdx.x < use.r) {
    float total = 0.f;
    for (int w = 0; w < WARPS; ++w) total += parts[0][w][threadIdx.x];
    use.s[row0 + threadIdx.x] = total;
  }
}

template <class E> bool wide(const E* rows, int64_t ld) {
  return reinterpret_cast<uintptr_t>(rows) % 16 == 0 && ld * sizeof(E) % 16 == 0;
}

template <class E> void launch_gram_dot(Use<E> use, cudaStream_t stream) {
  if (use.r == 0) return;
  for (Side<E>* side : {&use.inputs, &use.gradients}) side->wide = wide(side->x, side->ldx) && wide(side->y, side->ldy);
  const int64_t columns = std::max(use.inputs.columns, use.gradients.columns);
  use.share = 1;
  while (use.share < WARPS && use.share * STEP<E> < columns) use.share *= 2;
  const dim3 grid(static_cast<unsigned>((use.r + ROWS - 1) / ROWS)), block(WARPS * LANES);
  FASTRW_LAUNCH(gram_dot_kernel<E>, grid, block, stream, use);
}
}  // namespace fastrw::gram
