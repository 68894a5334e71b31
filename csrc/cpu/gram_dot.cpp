// gram_dot on the CPU: checks, then tiles of train rows over the threads. Validation rows are few (gram is chosen where
// k(p + q) < pq), so 16-bit ones are widened once for all threads; train rows are widened tile by tile.
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <vector>

#include "../checks.h"
#include "../ops.h"
#include "isa.h"
#include "simd/gram_dot.h"

namespace fastrw {
namespace {
constexpr int64_t GRAIN = 1 << 16;  // multiply-adds that are worth a thread

template <class E>
Tensor run(const Tensor& a, const Tensor& g, const Tensor& a_val, const Tensor& g_val, double bias, ScalarType sums) {
  using T = sum_t<E>;
  const Tensor wide_a_val = torch::stable::to(a_val, sums), wide_g_val = torch::stable::to(g_val, sums);
  Tensor s = torch::stable::new_empty(a, {a.size(0)}, sums);
  const GramDot<E> use{
      static_cast<const E*>(a.const_data_ptr()),
      static_cast<const E*>(g.const_data_ptr()),
      static_cast<const T*>(wide_a_val.const_data_ptr()),
      static_cast<const T*>(wide_g_val.const_data_ptr()),
      static_cast<T*>(s.mutable_data_ptr()),
      a.size(0),
      a_val.size(0),
      a.size(1),
      g.size(1),
      a.stride(0),
      g.stride(0),
      wide_a_val.stride(0),
      wide_g_val.stride(0),
      T(bias),
  };
  const auto kernel = FASTRW_SELECT(gram_dot<E>);
  const int64_t width = use.p + use.q, tiles = (use.r + GRAM_DOT_ROWS - 1) / GRAM_DOT_ROWS;
  const int64_t grain = std::max<int64_t>(1, GRAIN / std::max<int64_t>(1, GRAM_DOT_ROWS * use.k * width));
  torch::stable::parallel_for(0, tiles, grain, [=](int64_t first, int64_t last) {
    std::vector<T> wide(sizeof(E) < sizeof(T) ? GRAM_DOT_ROWS * width : 0);
    kernel(use, first, last, wide.data());
  });
  return s;
}
}  // namespace

Tensor gram_dot_cpu(const Tensor& a, const Tensor& g, const Tensor& a_val, const Tensor& g_val, double bias) {
  check_gram_dot(a, g, a_val, g_val);
  const auto with = [&]<class E>(E, ScalarType sums) {
    return run<E>(rows(a), rows(g), rows(a_val), rows(g_val), bias, sums);
  };
  switch (a.scalar_type()) {
    case ScalarType::Float: return with(float(), ScalarType::Float);
    case ScalarType::Double: return with(double(), ScalarType::Double);
    case ScalarType::Half: return with(Half(), ScalarType::Float);
    case ScalarType::BFloat16: return with(BFloat16(), ScalarType::Float);
    default: break;
  }
  check(false, "gram_dot: the dtype must be float32, float64, bfloat16 or float16, got ", dtype(a));
  return a;
}
}  // namespace fastrw
