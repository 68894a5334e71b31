// Weighted sums of examples a stride apart, once for each instruction-set level.
#pragma once
#include "elements.h"

namespace fastrw {
// out[j] = sum over k < count of w[rows[k]] G[rows[k] stride + j], for from <= j < to
#define FASTRW_DECLARE(level)                                                                                   \
  namespace level {                                                                                             \
  template <class E>                                                                                            \
  void combine(const E* G, int64_t stride, const int64_t* rows, int64_t count, const sum_t<E>* w, int64_t from, \
               int64_t to, sum_t<E>* out);                                                                      \
  }
FASTRW_DECLARE(baseline)
FASTRW_DECLARE(avx2)
FASTRW_DECLARE(avx512)
#undef FASTRW_DECLARE
}  // namespace fastrw
