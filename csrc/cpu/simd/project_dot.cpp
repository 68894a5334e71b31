// s_r = a_r . (V^T g_r) + v_b . g_r: V^T g of a tile of rows stays in registers until it has met a. Taken this way
// round V is packed as it lies.
#include "project_dot.h"

#include "tile.h"

namespace fastrw::FASTRW_LEVEL {
namespace {
// lanes[i] += a_i * (x_i . panel) over the panel's columns; of R rows `rows` exist, and the last stands for the others
template <int R, int V, class E, class T>
[[gnu::noinline]] void tile(const T* x, const T* panel, int64_t depth, const E* a, int64_t stride, int64_t rows,
                            int64_t columns, Vector<T>* lanes, Ahead<E>& ahead) {
  constexpr int L = LANES<T>;
  for (int i = 0; i < R; ++i)
    for (int v = 0; v < V; ++v) __builtin_prefetch(a + (i < rows ? i : rows - 1) * stride + v * L);
  Vector<T> acc[R][V] = {};
  products<PROJECT_ROW, 1>(x, panel, depth, acc, ahead);
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i, a += i < rows ? stride : 0)
    for (int v = 0; v < V; ++v)
      lanes[i] += acc[i][v] * (columns >= V * L ? fetch(a + v * L) : fetch(a + v * L, columns - v * L));
}
}  // namespace

template <class E>
void pack_block(const Rows<E>& V, Block block, int64_t first, int64_t last, sum_t<E>* packed) {
  const int64_t depth = block.q1 - block.q0;
  pack_panels(V, block.q0, depth, first, last, packed + (first - block.p0) * depth);
}

template <class E>
void project_dot(const ProjectDot<E>& use, Block block, const sum_t<E>* packed, int64_t first, int64_t last,
                 sum_t<E>* scratch) {
  using T = sum_t<E>;
  constexpr int L = LANES<T>;
  const int64_t depth = block.q1 - block.q0;
  T* x = scratch + PROJECT_ROWS * L;
  for (int64_t row = first; row < last; row += PROJECT_ROWS) {
    const int64_t end = least(row + PROJECT_ROWS, last);
    Vector<T>* lanes = (Vector<T>*)scratch;
    for (int64_t i = 0; i < PROJECT_ROWS; ++i) lanes[i] = Vector<T>{};
    for (int64_t i = 0; row + i < end; ++i) {
      const E* g = use.g[row + i] + block.q0;
      for (int64_t k = 0; k < depth; k += L) {
        const Vector<T> some = fetch(g + k, depth - k);
        store(x + i * PROJECT_ROW + k, some);
        if (use.v_b && block.p0 == 0) lanes[i] += some * fetch(use.v_b + block.q0 + k, depth - k);
      }
    }
    Ahead<E> ahead{{use.g, use.a}, {block.q0, block.p0}, {block.q1, block.p1}, end, least(end + PROJECT_ROWS, last)};
    for (int64_t column = block.p0; column < block.p1; column += WIDTH<T>)
      for (int64_t i = row; i < end; i += ROWS)
        with_tile<T>(end - i, block.p1 - column, [&](auto rows, auto vectors) {
          tile<rows.value, vectors.value>(x + (i - row) * PROJECT_ROW, packed + (column - block.p0) * depth, depth,
                                          use.a[i] + column, use.a.stride, end - i, block.p1 - column,
                                          lanes + (i - row), ahead);
        });
    for (int64_t i = row; i < end; i += 4) {
      const Vector<T>* from = lanes + (i - row);
      const Vector<T> four[4] = {from[0], from[1], from[2], from[3]};
      const Four<T> s = sums<T>(four);
      for (int j = 0; j < 4 && i + j < end; ++j) use.s[i + j] += s[j];
    }
  }
}

#define FASTRW_INSTANTIATE(E)                                                   \
  template void pack_block(const Rows<E>&, Block, int64_t, int64_t, sum_t<E>*); \
  template void project_dot(const ProjectDot<E>&, Block, const sum_t<E>*, int64_t, int64_t, sum_t<E>*);
FASTRW_INSTANTIATE(float)
FASTRW_INSTANTIATE(double)
FASTRW_INSTANTIATE(Half)
FASTRW_INSTANTIATE(BFloat16)
}  // namespace fastrw::FASTRW_LEVEL
