// norm_dot on the CPU: checks, then whole examples over the threads.
#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <vector>

#include "../checks.h"
#include "../ops.h"
#include "dtypes.h"
#include "isa.h"
#include "norm.h"
#include "simd/norm.h"

namespace fastrw {
namespace {
template <class E>
void run(const Tensor& x, const Tensor& g, const Tensor* mean, const Tensor& rstd, const Tensor* V_gamma,
         const Tensor* V_beta, const Tensor& s) {
  using T = sum_t<E>;
  const NormUse<E> use(V_gamma ? x : g, g, mean, rstd);  // without V_gamma x is not read
  const int64_t C = use.view.C;
  const Tensor gamma = V_gamma ? vector(*V_gamma, s.scalar_type()) : s;
  const Tensor beta = V_beta ? vector(*V_beta, s.scalar_type()) : s;
  const std::vector<T> zeros(V_beta ? 0 : C);
  const T* const gamma_at = V_gamma ? pointer<T>(gamma) : nullptr;
  const T* const beta_at = V_beta ? pointer<T>(beta) : zeros.data();
  T* const to = mutable_pointer<T>(s);
  const auto kernel = FASTRW_SELECT(norm_dot<E>);
  const int64_t grain = std::max<int64_t>(1, NORM_GRAIN / std::max<int64_t>(1, use.view.S * C));
  torch::stable::parallel_for(0, use.view.n, grain, [=, view = use.view](int64_t first, int64_t last) {
    std::vector<T> room(2 * C);
    kernel(view, gamma_at, beta_at, to, first, last, room.data());
  });
}
}  // namespace

Tensor norm_dot_cpu(const Tensor& x, const Tensor& g, const Maybe& mean, const Tensor& rstd, const Maybe& V_gamma,
                    const Maybe& V_beta) {
  check_norm_dot(x, g, maybe(mean), rstd, maybe(V_gamma), maybe(V_beta));
  if (x.numel() == 0) return torch::stable::new_zeros(x, {x.size(0)}, sums(x.scalar_type()));
  const Tensor s = torch::stable::new_empty(x, {x.size(0)}, sums(x.scalar_type()));
  with_dtype(x, [&]<class E>(E) { run<E>(x, g, maybe(mean), rstd, maybe(V_gamma), maybe(V_beta), s); });
  return s;
}
}  // namespace fastrw
