// The kernel of embedding_dot, once for each instruction-set level.
#pragma once
#include "elements.h"

namespace fastrw {
template <class E, class F> struct EmbeddingDot {  // F is E or the type of its sums
  const int64_t* idx;                              // [r], idx_step apart, each a row of V
  const E* g;                                      // [r, q], rows ldg apart
  const F* V;                                      // [v, q], rows ldv apart
  sum_t<E>* s;                                     // [r]
  int64_t q, idx_step, ldg, ldv, padding_idx;
};

// s of the rows first <= r < last
#define FASTRW_DECLARE(level)                                                                                 \
  namespace level {                                                                                           \
  template <class E, class F> void embedding_dot(const EmbeddingDot<E, F>& use, int64_t first, int64_t last); \
  }
FASTRW_DECLARE(baseline)
FASTRW_DECLARE(avx2)
FASTRW_DECLARE(avx512)
#undef FASTRW_DECLARE
}  // namespace fastrw
