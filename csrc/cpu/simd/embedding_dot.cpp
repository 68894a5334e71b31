// s_r = g_r . V[idx_r], four rows at a time: the rows of V are read where they lie.
#include "embedding_dot.h"

#include "walk.h"

namespace fastrw::FASTRW_LEVEL {
template <class E, class F> void embedding_dot(const EmbeddingDot<E, F>& use, int64_t first, int64_t last) {
  using T = sum_t<E>;
  constexpr int ROWS = 4;
  for (int64_t r = first; r < last; r += ROWS) {
    const E* g[ROWS];
    const F* V[ROWS];
    int64_t idx[ROWS];
    for (int j = 0; j < ROWS; ++j) {  // the last tile repeats the last row
      const int64_t row = r + j < last ? r + j : last - 1;
      idx[j] = use.idx[row * use.idx_step];
      g[j] = use.g + row * use.ldg;
      V[j] = use.V + idx[j] * use.ldv;
    }
    Vector<T> acc[ROWS] = {};
    walk<T>(use.q, [&](int64_t at, auto read, auto once, auto) __attribute__((always_inline)) {
      for (int j = 0; j < ROWS; ++j) acc[j] += once(g[j] + at) * read(V[j] + at);
    });
    const Four<T> s = totals<T>(acc);
    for (int j = 0; j < ROWS && r + j < last; ++j) use.s[r + j] = idx[j] == use.padding_idx ? T(0) : s[j];
  }
}

template void embedding_dot(const EmbeddingDot<float, float>&, int64_t, int64_t);
template void embedding_dot(const EmbeddingDot<double, double>&, int64_t, int64_t);
template void embedding_dot(const EmbeddingDot<Half, Half>&, int64_t, int64_t);
template void embedding_dot(const EmbeddingDot<Half, float>&, int64_t, int64_t);
template void embedding_dot(const EmbeddingDot<BFloat16, BFloat16>&, int64_t, int64_t);
template void embedding_dot(const EmbeddingDot<BFloat16, float>&, int64_t, int64_t);
}  // namespace fastrw::FASTRW_LEVEL
