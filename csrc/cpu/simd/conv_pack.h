// Tensors to the packed form of conv.h and back, once for each instruction-set level.
#pragma once
#include "conv.h"

// pack_inputs: block b of one example's x to [Hp][Wp][width]. `place` has the packed position of each input position,
//     -1 where it is not read; what no input position fills has to be 0 before.
// pack_gradients: vectors from..to of block b of one example's g, times scale, to [panel][position][lanes of the
// panel]: panels of
//     PANEL_VECTORS vectors, the last may have one.
// pack_weight: V [O][c KH KW] to [taps][Op]; unpack_weight: back. `tap` has the packed tap of each c KH KW.
// unpack_values: packed values of a block, as pack_gradients leaves gradients, to t [O][position] (strides) of one
//     example; adds to sums [2][O]: sum of t, sum of t y.
namespace fastrw {
constexpr int PANEL_VECTORS = 2;

#define FASTRW_DECLARE(level)                                                                                       \
  namespace level {                                                                                                 \
  template <class E>                                                                                                \
  void pack_inputs(const ConvPlan& plan, const E* x, const ConvStrides& at, int64_t b, const int32_t* place,        \
                   sum_t<E>* packed);                                                                               \
  template <class E>                                                                                                \
  void pack_gradients(const ConvPlan& plan, const E* g, const ConvStrides& at, int64_t b, int64_t from, int64_t to, \
                      sum_t<E> scale, sum_t<E>* packed);                                                            \
  template <class T> void pack_weight(const ConvPlan& plan, const T* V, const int32_t* tap, T* packed);             \
  template <class T> void unpack_weight(const ConvPlan& plan, const T* packed, const int32_t* tap, T* V);           \
  template <class E>                                                                                                \
  void unpack_values(const ConvPlan& plan, const sum_t<E>* packed, int64_t b, const E* y, const ConvStrides& y_at,  \
                     sum_t<E>* t, const ConvStrides& t_at, sum_t<E>* sums);                                         \
  }
FASTRW_DECLARE(baseline)
FASTRW_DECLARE(avx2)
FASTRW_DECLARE(avx512)
#undef FASTRW_DECLARE
}  // namespace fastrw
