// gram_dot on the CPU: checks, then tiles of train rows over the threads.
#include <algorithm>
#include <optional>
#include <vector>

#include "../checks.h"
#include "../ops.h"
#include "dtypes.h"
#include "gram_use.h"
#include "isa.h"

namespace fastrw {
namespace {
// With many validation rows the same sum is quicker through V = sum_k g_k a_k^T: fewer FLOPs, and 1.3 of the rate.
bool through_V(double r, double k, double p, double q) { return 1.3 * r * k * (p + q) > (r + k) * p * q; }

Tensor by_V(const Tensor& a, const Tensor& g, const Tensor& a_val, const Tensor& g_val, double bias) {
  const auto [V, v_b] = weighted_outer_cpu(a_val, g_val, std::nullopt);
  if (bias == 0) return project_dot_cpu(a, g, V, std::nullopt);
  const auto scale = [&](auto* x) { std::for_each(x, x + v_b.numel(), [=](auto& v) { v *= bias; }); };
  v_b.scalar_type() == ScalarType::Double ? scale(mutable_pointer<double>(v_b)) : scale(mutable_pointer<float>(v_b));
  return project_dot_cpu(a, g, V, v_b);
}
}  // namespace

Tensor gram_dot_cpu(const Tensor& a, const Tensor& g, const Tensor& a_val, const Tensor& g_val, double bias) {
  check_gram_dot(a, g, a_val, g_val);
  if (through_V(a.size(0), a_val.size(0), a.size(1), g.size(1))) return by_V(a, g, a_val, g_val, bias);
  return with_dtype(a, [&]<class E>(E) {
    using T = sum_t<E>;
    const GramUse<E> use(a, g, a_val, g_val, bias);
    Tensor s = torch::stable::new_empty(a, {a.size(0)}, sums(a.scalar_type()));
    GramDot<E> view = use.view;
    view.s = mutable_pointer<T>(s);
    const auto kernel = FASTRW_SELECT(gram_dot<E>);
    const int64_t grain = std::max<int64_t>(1, GRAM_GRAIN / std::max<int64_t>(1, GRAM_DOT_ROWS * use.row_work()));
    torch::stable::parallel_for(0, gram_dot_tiles(view.r), grain, [=](int64_t first, int64_t last) {
      std::vector<T> room(gram_dot_room<E>(view.p + view.q));
      kernel(view, first, last, room.data());
    });
    return s;
  });
}
}  // namespace fastrw
