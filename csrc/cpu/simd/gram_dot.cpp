// s_r = sum_k (a_r.a_k + bias)(g_r.g_k): tiles of train rows times tiles of validation rows, both products in
// registers.
#include "gram_dot.h"

#include "vector.h"

namespace fastrw::FASTRW_LEVEL {
namespace {
constexpr int ROWS = GRAM_DOT_ROWS;
static_assert(ROWS == 4, "sums are taken four rows at a time");
constexpr int VALS = FASTRW_REGISTERS == 32 ? 6 : 3;  // sums, one tile of y and one vector of x fill the registers
constexpr int64_t BLOCK_BYTES = 256 << 10;            // validation rows that stay in L2 while the train rows pass

// out[v] = {x_0 . y_v, ..., x_3 . y_v} over their columns
template <int V, class T>
inline void products(const T* const (&x)[ROWS], const T* y, int64_t ldy, int64_t columns, Four<T> (&out)[V]) {
  Vector<T> acc[V][ROWS] = {};
  int64_t column = 0;
  const auto step = [&](auto fetch) __attribute__((always_inline)) {
    Vector<T> ys[V];
    for (int v = 0; v < V; ++v) ys[v] = fetch(y + v * ldy + column);
    for (int i = 0; i < ROWS; ++i) {
      const Vector<T> xi = fetch(x[i] + column);
      for (int v = 0; v < V; ++v) acc[v][i] += xi * ys[v];
    }
  };
  for (; column + LANES<T> <= columns; column += LANES<T>) step([](const T* at) { return load(at); });
  if (column < columns) step([=](const T* at) { return load(at, columns - column); });
  for (int v = 0; v < V; ++v) out[v] = sums<T>(acc[v]);
}

template <int V, class E, class T>
void add(const GramDot<E>& use, const T* const (&a)[ROWS], const T* const (&g)[ROWS], int64_t k, Four<T>& s) {
  Four<T> aa[V], gg[V];
  products<V>(a, use.a_val + k * use.lda_val, use.lda_val, use.p, aa);
  products<V>(g, use.g_val + k * use.ldg_val, use.ldg_val, use.q, gg);
  for (int v = 0; v < V; ++v) s += (aa[v] + use.bias) * gg[v];
}

// `count` validation rows from k on, in tiles as equal as they can be: 10 rows are 5 + 5, not 6 + 4
template <class E, class T>
void add_block(const GramDot<E>& use, const T* const (&a)[ROWS], const T* const (&g)[ROWS], int64_t k, int64_t count,
               Four<T>& s) {
  for (int64_t tiles = (count + VALS - 1) / VALS; tiles; --tiles) {
    const int64_t rows = (count + tiles - 1) / tiles;
    switch (rows) {
      case 1: add<1>(use, a, g, k, s); break;
      case 2: add<2>(use, a, g, k, s); break;
      case 3: add<3>(use, a, g, k, s); break;
#if FASTRW_REGISTERS == 32
      case 4: add<4>(use, a, g, k, s); break;
      case 5: add<5>(use, a, g, k, s); break;
      case 6: add<6>(use, a, g, k, s); break;
#endif
    }
    k += rows;
    count -= rows;
  }
}

// the row as the sums' type: itself, or a copy at `wide`
template <class E> inline const sum_t<E>* wide_row(const E* x, int64_t columns, sum_t<E>* wide) {
  if constexpr (sizeof(E) == sizeof(sum_t<E>)) {
    return x;
  } else {
    for (int64_t j = 0; j < columns; ++j) wide[j] = widen(x[j]);
    return wide;
  }
}
}  // namespace

template <class E> void gram_dot(const GramDot<E>& use, int64_t first, int64_t last, sum_t<E>* wide) {
  using T = sum_t<E>;
  const int64_t width = use.p + use.q;
  const int64_t fits = BLOCK_BYTES / int64_t(sizeof(T)) / (width > 0 ? width : 1) / VALS * VALS;
  const int64_t block = fits > VALS ? fits : VALS;
  for (int64_t i = first * ROWS; i < last * ROWS && i < use.r; ++i) use.s[i] = 0;
  for (int64_t k = 0; k < use.k; k += block) {
    for (int64_t tile = first; tile < last; ++tile) {
      const T *a[ROWS], *g[ROWS];
      Four<T> s = {};
      for (int i = 0; i < ROWS; ++i) {  // the last tile repeats the last row: every row is summed in the same order
        const int64_t r = tile * ROWS + i < use.r ? tile * ROWS + i : use.r - 1;
        a[i] = wide_row(use.a + r * use.lda, use.p, wide + i * width);
        g[i] = wide_row(use.g + r * use.ldg, use.q, wide + i * width + use.p);
      }
      add_block(use, a, g, k, use.k - k < block ? use.k - k : block, s);
      for (int i = 0; i < ROWS && tile * ROWS + i < use.r; ++i) use.s[tile * ROWS + i] += s[i];
    }
  }
}

template void gram_dot(const GramDot<float>&, int64_t, int64_t, float*);
template void gram_dot(const GramDot<double>&, int64_t, int64_t, double*);
template void gram_dot(const GramDot<Half>&, int64_t, int64_t, float*);
template void gram_dot(const GramDot<BFloat16>&, int64_t, int64_t, float*);
}  // namespace fastrw::FASTRW_LEVEL
