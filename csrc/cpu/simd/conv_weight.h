// The weight gradient of packed examples, once for each instruction-set level.
#pragma once
#include "conv.h"

namespace fastrw {
// x [example][x_size], g [example][g_size] as conv_pack.h leaves them: block b of the examples.
template <class T> struct ConvWeight {
  const T *x, *g;
  int64_t examples, b;
  int64_t first, last;  // vectors of the block, whole panels
  T* G;                 // [taps][Op]: the sum over the examples, on top of what is there where `add`
  const T* V;           // [taps][Op], or null: no product is taken
  bool add;
};

// Returns <G, V> over those vectors of the block.
#define FASTRW_DECLARE(level)                                                       \
  namespace level {                                                                 \
  template <class T> T conv_weight(const ConvPlan& plan, const ConvWeight<T>& use); \
  }
FASTRW_DECLARE(baseline)
FASTRW_DECLARE(avx2)
FASTRW_DECLARE(avx512)
#undef FASTRW_DECLARE
}  // namespace fastrw
