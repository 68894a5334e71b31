// A use of gram_dot as the CPU kernel reads it, and the tensors that it points to. Validation rows are few (gram is
// chosen where k(p + q) < pq), so 16-bit ones are widened once for all threads; train rows are widened tile by tile.
#pragma once
#include <torch/csrc/stable/ops.h>

#include "dtypes.h"
#include "simd/gram_dot.h"

namespace fastrw {
template <class E> struct GramUse {
  Tensor a, g, a_val, g_val;
  GramDot<E> view;  // without its s

  GramUse(const Tensor& a, const Tensor& g, const Tensor& a_val, const Tensor& g_val, double bias)
      : a(rows(a)), g(rows(g)), a_val(widened(a_val)), g_val(widened(g_val)) {
    using T = sum_t<E>;
    view = {pointer<E>(this->a),
            pointer<E>(this->g),
            pointer<T>(this->a_val),
            pointer<T>(this->g_val),
            nullptr,
            a.size(0),
            a_val.size(0),
            a.size(1),
            g.size(1),
            this->a.stride(0),
            this->g.stride(0),
            this->a_val.stride(0),
            this->g_val.stride(0),
            T(bias)};
  }

  int64_t width() const { return view.p + view.q; }
  int64_t row_work() const { return view.k * width(); }  // multiply-adds of a train row

 private:
  static Tensor widened(const Tensor& t) { return torch::stable::to(rows(t), sums(t.scalar_type())); }
};

// what gram_dot's kernel needs beside: a tile of train rows, widened
template <class E> size_t gram_dot_room(int64_t width) {
  return sizeof(E) < sizeof(sum_t<E>) ? GRAM_DOT_ROWS * width : 0;
}
constexpr int64_t GRAM_GRAIN = 1 << 16;  // multiply-adds per thread, at least
inline int64_t gram_dot_tiles(int64_t r) { return (r + GRAM_DOT_ROWS - 1) / GRAM_DOT_ROWS; }
}  // namespace fastrw
