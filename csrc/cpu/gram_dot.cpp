// gram_dot on the CPU: checks, then tiles of train rows over the threads.
#include <algorithm>
#include <vector>

#include "../checks.h"
#include "../ops.h"
#include "gram_use.h"
#include "isa.h"

namespace fastrw {
Tensor gram_dot_cpu(const Tensor& a, const Tensor& g, const Tensor& a_val, const Tensor& g_val, double bias) {
  check_gram_dot(a, g, a_val, g_val);
  const auto with = [&]<class E>(E) {
    using T = sum_t<E>;
    const GramUse<E> use(a, g, a_val, g_val, bias);
    Tensor s = torch::stable::new_empty(a, {a.size(0)}, sums(a.scalar_type()));
    GramDot<E> view = use.view;
    view.s = static_cast<T*>(s.mutable_data_ptr());
    const auto kernel = FASTRW_SELECT(gram_dot<E>);
    const int64_t grain = std::max<int64_t>(1, GRAM_GRAIN / std::max<int64_t>(1, GRAM_DOT_ROWS * use.row_work()));
    torch::stable::parallel_for(0, gram_dot_tiles(view.r), grain, [=](int64_t first, int64_t last) {
      std::vector<T> room(gram_dot_room<E>(view.p + view.q));
      kernel(view, first, last, room.data());
    });
    return s;
  };
  switch (a.scalar_type()) {
    case ScalarType::Double: return with(double());
    case ScalarType::Half: return with(Half());
    case ScalarType::BFloat16: return with(BFloat16());
    default: return with(float());
  }
}
}  // namespace fastrw
