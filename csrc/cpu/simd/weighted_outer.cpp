// W = sum_r w_r g_r a_r^T in tiles: the sums of a tile stay in registers while the packed rows pass.
#include "weighted_outer.h"
#include "tile.h"

namespace fastrw::FASTRW_LEVEL {
namespace {
template <int R, int V, class T, class E>
[[gnu::noinline]] void tile(const T* x, const T* panel, int64_t depth, T* W, int64_t p, int64_t rows, int64_t columns,
                            bool add, Ahead<E>& ahead) {
  constexpr int L = LANES<T>;
  Vector<T> acc[R][V] = {};
  products<1, ROWS>(x, panel, depth, acc, ahead);
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i, W += p) {
    if (i == rows) return;
    for (int v = 0; v < V; ++v) {
      T* to = W + v * L;
      if (columns >= V * L)
        store(to, add ? acc[i][v] + load(to) : acc[i][v]);
      else
        store(to, add ? acc[i][v] + fetch(to, columns - v * L) : acc[i][v], columns - v * L);
    }
  }
}

// b += w_k times row k
template <class E, class T>
void add_rows(const Rows<E>& rows, const T* w, int64_t from, int64_t count, Block block, T* b) {
  for (int64_t k = from; k < from + count; ++k)
    for (int64_t q = block.q0; q < block.q1; q += LANES<T>) {
      const T weight = w ? w[k] : T(1);
      store(b + q, fetch(b + q, block.q1 - q) + weight * fetch(rows[k] + q, block.q1 - q), block.q1 - q);
    }
}
}  // namespace

template <class E>
void weighted_outer(const WeightedOuter<E>& use, Block block, int64_t first, int64_t last, sum_t<E>* W, sum_t<E>* b,
                    sum_t<E>* scratch) {
  using T = sum_t<E>;
  if (block.p0 == 0)
    for (int64_t q = block.q0; q < block.q1; ++q) b[q] = 0;
  const int64_t step = last - first > OUTER_DEPTH ? OUTER_STEP : OUTER_DEPTH;
  for (int64_t row = first; row == first || row < last; row += step) {
    const int64_t depth = least(step, last - row);
    T *panels = scratch, *x = scratch + outer_panels(block.p1 - block.p0, depth);
    pack_rows(use.g, use.w, row, depth, block.q0, block.q1, x);
    if (block.p0 == 0) add_rows(use.g, use.w, row, depth, block, b);
    pack_panels(use.a, row, depth, block.p0, block.p1, panels);
    Ahead<E> ahead{
        {use.g, use.a}, {block.q0, block.p0}, {block.q1, block.p1}, row + depth, least(row + 2 * depth, last)};
    for (int64_t p = block.p0; p < block.p1; p += WIDTH<T>)
      for (int64_t q = block.q0, at = 0; q < block.q1; q += ROWS, at += depth * ROWS)
        with_tile<T>(block.q1 - q, block.p1 - p, [&](auto rows, auto vectors) {
          tile<rows.value, vectors.value>(x + at, panels + (p - block.p0) * depth, depth, W + q * use.p + p, use.p,
                                          block.q1 - q, block.p1 - p, row > first, ahead);
        });
  }
}

#define FASTRW_INSTANTIATE(E) \
  template void weighted_outer(const WeightedOuter<E>&, Block, int64_t, int64_t, sum_t<E>*, sum_t<E>*, sum_t<E>*);
FASTRW_INSTANTIATE(float)
FASTRW_INSTANTIATE(double)
FASTRW_INSTANTIATE(Half)
FASTRW_INSTANTIATE(BFloat16)
}  // namespace fastrw::FASTRW_LEVEL
