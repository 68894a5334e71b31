// The kernels of project_dot, once for each instruction-set level.
#pragma once
#include "rows.h"

namespace fastrw {
template <class E> struct ProjectDot {
  Rows<E> a;            // [r, p]
  Rows<E> g;            // [r, q]
  const sum_t<E>* v_b;  // [q], or null
  sum_t<E>* s;          // [r]
};

// A block of V is packed once for all rows of a and g.
constexpr int64_t PROJECT_DEPTH = 512;  // rows of a block at most
constexpr int64_t PROJECT_PANEL = 48;   // at every level a whole number of panels is as wide
constexpr int64_t PROJECT_TILE = 8;     // and a whole number of tiles as high
constexpr int64_t PROJECT_ROWS = 96;    // rows of a and g that pass a block together
constexpr int64_t PROJECT_ROW = 528;    // between rows of g packed: at 512 they would fall in a few sets of L1
constexpr int64_t PROJECT_SCRATCH = PROJECT_ROWS * (PROJECT_ROW + 16);  // sums that a thread needs room for

#define FASTRW_DECLARE(level)                                                                                         \
  namespace level {                                                                                                   \
  /* columns [first, last) of the block, as panels; those of the whole block lie one after the other from `packed` */ \
  template <class E>                                                                                                  \
  void pack_block(const Rows<E>& V, Block block, int64_t first, int64_t last, sum_t<E>* packed);                      \
  /* add what one block gives to s of rows [first, last) */                                                           \
  template <class E>                                                                                                  \
  void project_dot(const ProjectDot<E>& use, Block block, const sum_t<E>* packed, int64_t first, int64_t last,        \
                   sum_t<E>* scratch);                                                                                \
  }
FASTRW_DECLARE(baseline)
FASTRW_DECLARE(avx2)
FASTRW_DECLARE(avx512)
#undef FASTRW_DECLARE
}  // namespace fastrw
