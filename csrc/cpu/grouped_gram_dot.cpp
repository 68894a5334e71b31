// grouped_gram_dot and joint_gram_dot on the CPU: checks, then examples over the threads, each thread taking its
// examples through all uses by gram_dot's kernel: one parallel region for the whole model.
#include <algorithm>
#include <vector>

#include "../checks.h"
#include "../ops.h"
#include "dtypes.h"
#include "gram_use.h"
#include "isa.h"

namespace fastrw {
namespace {
// [n]: the scores along all uses
template <class E> void run(const std::vector<GramUse<E>>& uses, int64_t n, const Tensor& s) {
  using T = sum_t<E>;
  int64_t width = 0, work = 0, most = 0;  // of a row, of an example, rows of an example
  for (const auto& use : uses) {
    const int64_t rows_per_example = use.view.r / n;
    width = std::max(width, use.width()), work += rows_per_example * use.row_work(),
    most = std::max(most, rows_per_example);
  }
  T* const sums_at = mutable_pointer<T>(s);
  const auto* const each = uses.data();
  const size_t count = uses.size();
  const auto kernel = FASTRW_SELECT(gram_dot<E>);
  const int64_t grain = std::max<int64_t>(GRAM_DOT_ROWS, GRAM_GRAIN / std::max<int64_t>(1, work));
  torch::stable::parallel_for(0, n, grain, [=](int64_t first, int64_t last) {
    std::vector<T> room(gram_dot_room<E>(width)), of_rows((last - first) * most);
    for (size_t i = 0; i < count; ++i) {
      GramDot<E> part = each[i].view;
      const int64_t rows_per_example = part.r / n;
      part.a += first * rows_per_example * part.lda;
      part.g += first * rows_per_example * part.ldg;
      part.r = (last - first) * rows_per_example;
      part.s = of_rows.data();
      kernel(part, 0, gram_dot_tiles(part.r), room.data());
      for (int64_t row = 0; row < part.r; ++row) sums_at[first + row / rows_per_example] += part.s[row];
    }
  });
}
}  // namespace

Tensor grouped_gram_dot_cpu(const std::vector<Tensor>& a, const std::vector<Tensor>& g,
                            const std::vector<Tensor>& a_val, const std::vector<Tensor>& g_val,
                            const std::vector<double>& bias, int64_t n, bool) {
  check_grouped_gram_dot(a, g, a_val, g_val, bias, n);
  const Tensor s = torch::stable::new_zeros(a[0], {n}, sums(a[0].scalar_type()));
  if (n == 0) return s;
  with_dtype(a[0], [&]<class E>(E) {
    std::vector<GramUse<E>> uses;
    uses.reserve(a.size());
    for (size_t i = 0; i < a.size(); ++i) uses.emplace_back(a[i], g[i], a_val[i], g_val[i], bias[i]);
    run(uses, n, s);
  });
  return s;
}

Tensor joint_gram_dot_cpu(const std::vector<Tensor>& a, const std::vector<Tensor>& g, const std::vector<double>& bias,
                          int64_t n, int64_t m, bool) {
  check_joint_gram_dot(a, g, bias, n, m);
  const Tensor s = torch::stable::new_zeros(a[0], {n}, sums(a[0].scalar_type()));
  if (n == 0) return s;
  with_dtype(a[0], [&]<class E>(E) {
    std::vector<GramUse<E>> uses;
    uses.reserve(a.size());
    for (size_t i = 0; i < a.size(); ++i) uses.emplace_back(a[i], g[i], a[i].size(0) / (n + m) * n, bias[i]);
    run(uses, n, s);
  });
  return s;
}
}  // namespace fastrw
