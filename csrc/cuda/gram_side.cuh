// What the two ways to compute gram_dot share: one use as they read it, and how warps divide it.
#pragma once
#include <stdint.h>

#include "reduce.cuh"

namespace fastrw::gpu {
template <class E> struct Side {  // of inputs, a and a_val or of gradients, g and g_val
  const E* x;                     // [r, columns] train rows, ldx apart
  const E* y;                     // [k, columns] validation rows, ldy apart
  int64_t ldx, ldy, columns;
  bool wide;  // whether every row starts at a multiple of 16 bytes
};

// How the warps of a block divide its work, in powers of 2: `share` of them take the columns of one tile, `over_k` such
// teams its validation rows; as many teams as are left take other train rows.
struct Split {
  int share, over_k;

  __host__ __device__ int row_teams() const { return WARPS / (share * over_k); }
};

inline Split choose_split(int64_t columns, int64_t step, int64_t k, int64_t vals) {
  Split split{1, 1};
  while (split.share < WARPS && split.share * step < columns) split.share *= 2;
  while (split.row_teams() > 1 && split.over_k * vals < k) split.over_k *= 2;
  return split;
}

template <class E> struct Use {
  Side<E> inputs, gradients;
  int64_t r, k;
  float bias;
  Split split;
};
}  // namespace fastrw::gpu
