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
    look(a.size(0), 0, bias);
  }

  // of whole rows: `r` train rows, then the validation rows
  GramUse(const Tensor& a, const Tensor& g, int64_t r, double bias)
      : a(rows(a)), g(rows(g)), a_val(after(this->a, r)), g_val(after(this->g, r)) {
    look(r, WIDENS ? 0 : r, bias);
  }

  int64_t width() const { return view.p + view.q; }
  int64_t row_work() const { return view.k * width(); }  // multiply-adds of a train row

 private:
  static constexpr bool WIDENS = sizeof(E) < sizeof(sum_t<E>);

  // first: the row of a_val and g_val that is the first of the validation rows
  void look(int64_t r, int64_t first, double bias) {
    using T = sum_t<E>;
    view = {pointer<E>(a),
            pointer<E>(g),
            pointer<T>(a_val) + first * a_val.stride(0),
            pointer<T>(g_val) + first * g_val.stride(0),
            nullptr,
            r,
            a_val.size(0) - first,
            a.size(1),
            g.size(1),
            a.stride(0),
            g.stride(0),
            a_val.stride(0),
            g_val.stride(0),
            T(bias)};
  }

  // the rows from r on, widened; all rows where there is nothing to widen: a view costs more than the product
  static Tensor after(Tensor t, int64_t r) {
    return WIDENS ? widened(torch::stable::narrow(t, 0, r, t.size(0) - r)) : t;
  }

  static Tensor widened(const Tensor& t) {
    const ScalarType type = sums(t.scalar_type());
    return type == t.scalar_type() ? rows(t) : torch::stable::to(rows(t), type);
  }
};

// what gram_dot's kernel needs beside: a tile of train rows, widened
template <class E> size_t gram_dot_room(int64_t width) {
  return sizeof(E) < sizeof(sum_t<E>) ? GRAM_DOT_ROWS * width : 0;
}
constexpr int64_t GRAM_GRAIN = 1 << 16;  // multiply-adds per thread, at least
inline int64_t gram_dot_tiles(int64_t r) { return (r + GRAM_DOT_ROWS - 1) / GRAM_DOT_ROWS; }
}  // namespace fastrw
