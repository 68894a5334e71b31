// The row-tile kernel of gram_dot, once for each instruction-set level.
#pragma once
#include "elements.h"

namespace fastrw {
template <class E> struct GramDot {
  const E* a;             // [r, p], rows lda apart
  const E* g;             // [r, q], rows ldg apart
  const sum_t<E>* a_val;  // [k, p], rows lda_val apart
  const sum_t<E>* g_val;  // [k, q], rows ldg_val apart
  sum_t<E>* s;            // [r]
  int64_t r, k, p, q;
  int64_t lda, ldg, lda_val, ldg_val;
  sum_t<E> bias;
};

constexpr int GRAM_DOT_ROWS = 4;  // train rows of one tile

// s of the tiles first <= tile < last. `wide` holds GRAM_DOT_ROWS rows of p + q sums' type, or null where E is that
// type.
#define FASTRW_DECLARE(level)                                                                           \
  namespace level {                                                                                     \
  template <class E> void gram_dot(const GramDot<E>& use, int64_t first, int64_t last, sum_t<E>* wide); \
  }
FASTRW_DECLARE(baseline)
FASTRW_DECLARE(avx2)
FASTRW_DECLARE(avx512)
#undef FASTRW_DECLARE
}  // namespace fastrw
