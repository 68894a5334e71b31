// The kernels of the norms, once for each instruction-set level.
#pragma once
#include "elements.h"

namespace fastrw {
// x and g [n, S, C] with either channels or positions next to each other in memory; a row is what is contiguous.
template <class E> struct Norm {
  using T = sum_t<E>;
  const E *x, *g;
  const T *mean, *rstd;  // [n, S, G]; a mean that is not there points at one 0, all of its strides 0
  int64_t n, S, C, G;
  int64_t x_n, x_row, g_n, g_row;  // strides
  int64_t mean_n, mean_s, mean_group, rstd_n, rstd_s, rstd_group;
  bool positions;  // rows run over positions, one a channel; else over channels, one a position
  bool varies;     // one of the statistics varies along S; where rows run over positions its stride is 1 there
};

// s [n] and gamma, beta [n, C] of the examples first <= i < last. V_gamma [C] may be null; `room` holds 2 C elements.
#define FASTRW_DECLARE(level)                                                                                    \
  namespace level {                                                                                              \
  template <class E>                                                                                             \
  void norm_dot(const Norm<E>& use, const sum_t<E>* V_gamma, const sum_t<E>* V_beta, sum_t<E>* s, int64_t first, \
                int64_t last, sum_t<E>* room);                                                                   \
  template <class E>                                                                                             \
  void norm_instance(const Norm<E>& use, sum_t<E>* gamma, sum_t<E>* beta, int64_t first, int64_t last,           \
                     sum_t<E>* room);                                                                            \
  }
FASTRW_DECLARE(baseline)
FASTRW_DECLARE(avx2)
FASTRW_DECLARE(avx512)
#undef FASTRW_DECLARE
}  // namespace fastrw
