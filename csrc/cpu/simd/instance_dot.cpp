// G = sum_t g_t a_t^T of one example and <G, V>: a tile of G meets V in registers, then it is stored.
#include "outer.h"
#include "tile.h"

namespace fastrw::FASTRW_LEVEL {
namespace {
// G's tile is added to what earlier rows gave; <tile, V> to s
template <int R, int C, class F, class T>
[[gnu::noinline]] void tile(const T* x, const T* panel, int64_t depth, T* G, int64_t p, const F* V, int64_t stride,
                            int64_t rows, int64_t columns, bool add, Vector<T>& s) {
  constexpr int L = LANES<T>;
  Vector<T> acc[R][C] = {}, dot[C] = {};
  products<1, ROWS>(x, panel, depth, acc, Nothing{});
#pragma GCC unroll 16
  for (int i = 0; i < R; ++i, G += p, V += stride) {
    if (i == rows) break;
    for (int c = 0; c < C; ++c) {
      T* to = G + c * L;
      const int64_t left = columns - c * L;
      if (columns >= C * L) {
        dot[c] += acc[i][c] * fetch(V + c * L);
        store(to, add ? acc[i][c] + load(to) : acc[i][c]);
      } else {
        dot[c] += acc[i][c] * fetch(V + c * L, left);
        store(to, add ? acc[i][c] + fetch(to, left) : acc[i][c], left);
      }
    }
  }
  for (int c = 0; c < C; ++c) s += dot[c];
}

template <class E, class F>
void add_block(const InstanceDot<E, F>& use, Block block, int64_t row, int64_t depth, sum_t<E>* scratch,
               Vector<sum_t<E>>& s) {
  using T = sum_t<E>;
  T *panels = scratch, *x = scratch + outer_panels(block.p1 - block.p0, depth);
  pack_rows<E, T>(use.g, nullptr, row, depth, block.q0, block.q1, x);
  pack_panels(use.a, row, depth, block.p0, block.p1, panels);
  for (int64_t q = block.q0; q < block.q1; q += ROWS, x += depth * ROWS)
    for (int64_t p = block.p0; p < block.p1; p += WIDTH<T>)
      with_tile<T>(block.q1 - q, block.p1 - p, [&](auto rows, auto vectors) {
        tile<rows.value, vectors.value>(x, panels + (p - block.p0) * depth, depth, use.G + q * use.p + p, use.p,
                                        use.V[q] + p, use.V.stride, block.q1 - q, block.p1 - p, row > 0, s);
      });
}
}  // namespace

template <class Use> typename Use::Sum instance_dot(const Use& use, typename Use::Sum* scratch) {
  using T = typename Use::Sum;
  constexpr int L = LANES<T>;
  Vector<T> s = {};
  for (int64_t row = 0; row == 0 || row < use.t; row += OUTER_DEPTH) {
    const int64_t depth = least(OUTER_DEPTH, use.t - row);
    for (int64_t q = 0; q < use.q; q += OUTER_Q)
      for (int64_t p = 0; p < use.p; p += OUTER_P)
        add_block(use, {q, least(q + OUTER_Q, use.q), p, least(p + OUTER_P, use.p)}, row, depth, scratch, s);
    for (int64_t k = row; use.v_b && k < row + depth; ++k)
      for (int64_t q = 0; q < use.q; q += L) s += fetch(use.g[k] + q, use.q - q) * fetch(use.v_b + q, use.q - q);
  }
  T sum = 0;
  for (int i = 0; i < L; ++i) sum += s[i];
  return sum;
}

#define FASTRW_INSTANTIATE(E, F) template sum_t<E> instance_dot(const InstanceDot<E, F>&, sum_t<E>*);
FASTRW_INSTANTIATE(float, float)
FASTRW_INSTANTIATE(double, double)
FASTRW_INSTANTIATE(Half, Half)
FASTRW_INSTANTIATE(Half, float)
FASTRW_INSTANTIATE(BFloat16, BFloat16)
FASTRW_INSTANTIATE(BFloat16, float)
}  // namespace fastrw::FASTRW_LEVEL
