// Memory read in runs, once for each instruction-set level: a run is a plane [S] of one channel, or whole rows [C] of
// all channels, as many as make a run long.
#pragma once
#include "elements.h"

namespace fastrw {
template <class E> struct BatchNormTangent {
  using T = sum_t<E>;
  const E *x, *t, *residual, *output;  // dense and laid out alike; null where there is none (never x)
  E* out;
  int64_t size, length;  // elements in all, and of a run; the last run may be shorter
  int64_t channels;      // run r is a plane of channel r % channels, or 0: runs are rows
  // out = (x - mean) slope + t scale + shift: one number a channel, or one an element of a run
  const T *mean, *slope, *scale, *shift;
};

// Runs first <= r < last. The sums over them are those of t and of t (x - mean): of planes, partial [runs, 2], written;
// of rows, partial [2, length], added to.
#define FASTRW_DECLARE(level)                                                                                  \
  namespace level {                                                                                            \
  template <class E> void batch_norm_sums(const BatchNormTangent<E>&, int64_t first, int64_t last, sum_t<E>*); \
  template <class E> void batch_norm_tangent(const BatchNormTangent<E>&, int64_t first, int64_t last);         \
  }
FASTRW_DECLARE(baseline)
FASTRW_DECLARE(avx2)
FASTRW_DECLARE(avx512)
#undef FASTRW_DECLARE
}  // namespace fastrw
