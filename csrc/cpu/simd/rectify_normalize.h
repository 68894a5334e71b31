// The kernel of rectify_normalize, once for each instruction-set level.
#pragma once
#include "elements.h"

namespace fastrw {
// w [n] of s [n], both without gaps
#define FASTRW_DECLARE(level)                                                    \
  namespace level {                                                              \
  template <class E> void rectify_normalize(const E* s, sum_t<E>* w, int64_t n); \
  }
FASTRW_DECLARE(baseline)
FASTRW_DECLARE(avx2)
FASTRW_DECLARE(avx512)
#undef FASTRW_DECLARE
}  // namespace fastrw
