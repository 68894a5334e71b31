// Values of a convolution at packed positions, once for each instruction-set level.
#pragma once
#include "conv.h"

namespace fastrw {
// One term conv(x, V) of block b: x one example's packed inputs, V the block's packed panels.
template <class T> struct ConvTerm {
  const T* x;
  const T* V;
};

// pack_panels: block b of a packed weight [taps][Op] to [panel][tap][lanes of the panel].
// conv_dot: <conv(x, V) + v_b, g> over the block; g as pack_gradients leaves it, v_b [Op] or null.
// conv_values: conv(x, V) + conv(t, W) + v_b over the block, laid out as g is; t.x may be null.
// `starts` has the packed place of each output position.
#define FASTRW_DECLARE(level)                                                                                          \
  namespace level {                                                                                                    \
  template <class T> void pack_panels(const ConvPlan& plan, const T* weight, int64_t b, T* panels);                    \
  template <class T>                                                                                                   \
  T conv_dot(const ConvPlan& plan, ConvTerm<T> x, int64_t b, const T* v_b, const int64_t* starts, const T* g);         \
  template <class T>                                                                                                   \
  void conv_values(const ConvPlan& plan, ConvTerm<T> x, ConvTerm<T> t, int64_t b, const T* v_b, const int64_t* starts, \
                   T* values);                                                                                         \
  }
FASTRW_DECLARE(baseline)
FASTRW_DECLARE(avx2)
FASTRW_DECLARE(avx512)
#undef FASTRW_DECLARE
}  // namespace fastrw
