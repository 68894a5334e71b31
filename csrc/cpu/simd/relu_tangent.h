// t where output is positive, once for each instruction-set level.
#pragma once
#include "elements.h"

namespace fastrw {
#define FASTRW_DECLARE(level)                                                               \
  namespace level {                                                                         \
  template <class E> void relu_tangent(const E* t, const E* output, E* out, int64_t count); \
  }
FASTRW_DECLARE(baseline)
FASTRW_DECLARE(avx2)
FASTRW_DECLARE(avx512)
#undef FASTRW_DECLARE
}  // namespace fastrw
