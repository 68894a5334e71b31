// A tile of columns stays in registers while the examples pass.
#include "combine.h"

#include "transpose.h"

namespace fastrw::FASTRW_LEVEL {
namespace {
constexpr int VECTORS = FASTRW_REGISTERS / 2;

template <int V, class E>
void tile(const E* G, int64_t stride, const int64_t* rows, int64_t count, const sum_t<E>* w, sum_t<E>* out) {
  using T = sum_t<E>;
  Vector<T> acc[V] = {};
  for (int64_t k = 0; k < count; ++k) {
    const E* row = G + rows[k] * stride;
    const T weight = w[rows[k]];
    FASTRW_UNROLL for (int v = 0; v < V; ++v) acc[v] += weight * fetch(row + v * LANES<T>);
  }
  FASTRW_UNROLL for (int v = 0; v < V; ++v) store(out + v * LANES<T>, acc[v]);
}
}  // namespace

template <class E>
void combine(const E* G, int64_t stride, const int64_t* rows, int64_t count, const sum_t<E>* w, int64_t from,
             int64_t to, sum_t<E>* out) {
  using T = sum_t<E>;
  constexpr int N = LANES<T>;
  int64_t j = from;
  for (; j + VECTORS * N <= to; j += VECTORS * N) tile<VECTORS>(G + j, stride, rows, count, w, out + j);
  for (; j + 4 * N <= to; j += 4 * N) tile<4>(G + j, stride, rows, count, w, out + j);
  for (; j + N <= to; j += N) tile<1>(G + j, stride, rows, count, w, out + j);
  if (j == to) return;
  Vector<T> acc = {};
  for (int64_t k = 0; k < count; ++k) acc += w[rows[k]] * fetch(G + rows[k] * stride + j, to - j);
  store(out + j, acc, to - j);
}

template void combine(const float*, int64_t, const int64_t*, int64_t, const float*, int64_t, int64_t, float*);
template void combine(const double*, int64_t, const int64_t*, int64_t, const double*, int64_t, int64_t, double*);
template void combine(const Half*, int64_t, const int64_t*, int64_t, const float*, int64_t, int64_t, float*);
template void combine(const BFloat16*, int64_t, const int64_t*, int64_t, const float*, int64_t, int64_t, float*);
}  // namespace fastrw::FASTRW_LEVEL
