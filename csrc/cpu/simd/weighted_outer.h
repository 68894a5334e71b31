// The kernel of weighted_outer, once for each instruction-set level.
#pragma once
#include "rows.h"

namespace fastrw {
constexpr int64_t OUTER_DEPTH = 128;  // rows of a and g that are packed together, if they are all there are
constexpr int64_t OUTER_STEP = 96;    // else: a panel and a tile's rows stay in L1
constexpr int64_t OUTER_Q = 192;      // columns of g and of a that are, at most
constexpr int64_t OUTER_P = 528;

// sums that packed rows need room for: p columns of a; with q columns of g too
inline int64_t outer_panels(int64_t p, int64_t depth) { return (p + 47) / 48 * 48 * depth; }
inline int64_t outer_scratch(int64_t q, int64_t p, int64_t depth) { return outer_panels(p, depth) + (q + 8) * depth; }

template <class E> struct WeightedOuter {
  Rows<E> a;          // [r, p]
  Rows<E> g;          // [r, q]
  const sum_t<E>* w;  // [r], or null: ones
  int64_t p, q;
};

#define FASTRW_DECLARE(level)                                                                                          \
  namespace level {                                                                                                    \
  /* the block of W [q, p] = sum of w g a^T over rows [first, last); with the block's first column of b [q] too */     \
  template <class E>                                                                                                   \
  void weighted_outer(const WeightedOuter<E>& use, Block block, int64_t first, int64_t last, sum_t<E>* W, sum_t<E>* b, \
                      sum_t<E>* scratch);                                                                              \
  }
FASTRW_DECLARE(baseline)
FASTRW_DECLARE(avx2)
FASTRW_DECLARE(avx512)
#undef FASTRW_DECLARE
}  // namespace fastrw
