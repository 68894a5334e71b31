// embedding_dot on the CPU: checks, every index among them, then rows over the threads.
#include <torch/csrc/stable/ops.h>

#include <algorithm>

#include "../checks.h"
#include "../ops.h"
#include "dtypes.h"
#include "isa.h"
#include "simd/embedding_dot.h"

namespace fastrw {
namespace {
constexpr int64_t GRAIN = 1 << 15;  // elements of g per thread, at least

template <class E, class F>
Tensor run(const Tensor& idx, const Tensor& g, const Tensor& V, int64_t padding_idx, ScalarType sums) {
  const Tensor s = torch::stable::new_empty(g, {g.size(0)}, sums);
  const EmbeddingDot<E, F> use{
      pointer<int64_t>(idx), pointer<E>(g), pointer<F>(V), mutable_pointer<sum_t<E>>(s), g.size(1), idx.stride(0),
      g.stride(0),           V.stride(0),   padding_idx,
  };
  const auto kernel = FASTRW_SELECT(embedding_dot<E, F>);
  const int64_t grain = std::max<int64_t>(4, GRAIN / std::max<int64_t>(1, use.q) / 4 * 4);
  torch::stable::parallel_for(0, g.size(0), grain, [=](int64_t first, int64_t last) { kernel(use, first, last); });
  return s;
}

void check_range(const Tensor& idx, int64_t v) {
  const auto* at = pointer<int64_t>(idx);
  for (int64_t r = 0; r < idx.size(0); ++r, at += idx.stride(0))
    check(*at >= 0 && *at < v, "embedding_dot: idx must be at least 0 and less than v, got ", *at, " and ", v);
}
}  // namespace

Tensor embedding_dot_cpu(const Tensor& idx, const Tensor& g, const Tensor& V, int64_t padding_idx) {
  check_embedding_dot(idx, g, V);
  const Tensor rows_of = idx.scalar_type() == ScalarType::Long ? idx : torch::stable::to(idx, ScalarType::Long);
  check_range(rows_of, V.size(0));
  return with_dtype(g, [&]<class E>(E) {
    const auto with = [&]<class F>(F) {
      return run<E, F>(rows_of, rows(g), rows(V), padding_idx, sums(g.scalar_type()));
    };
    return V.scalar_type() == g.scalar_type() ? with(E()) : with(sum_t<E>());
  });
}
}  // namespace fastrw
