// norm_instance on the CPU: checks, then whole examples over the threads.
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
void run(const Tensor& x, const Tensor& g, const Tensor* mean, const Tensor& rstd, const Tensor& gamma,
         const Tensor& beta) {
  using T = sum_t<E>;
  const NormUse<E> use(x, g, mean, rstd);
  const int64_t C = use.view.C;
  T *const to_gamma = mutable_pointer<T>(gamma), *const to_beta = mutable_pointer<T>(beta);
  const auto kernel = FASTRW_SELECT(norm_instance<E>);
  const int64_t grain = std::max<int64_t>(1, NORM_GRAIN / std::max<int64_t>(1, use.view.S * C));
  torch::stable::parallel_for(0, use.view.n, grain, [=, view = use.view](int64_t first, int64_t last) {
    std::vector<T> room(2 * C);
    kernel(view, to_gamma, to_beta, first, last, room.data());
  });
}
}  // namespace

std::tuple<Tensor, Tensor> norm_instance_cpu(const Tensor& x, const Tensor& g, const Maybe& mean, const Tensor& rstd) {
  check_norm("norm_instance", x, g, maybe(mean), rstd);
  const auto make = [&] {
    const ScalarType type = sums(x.scalar_type());
    return x.numel() == 0 ? torch::stable::new_zeros(x, {x.size(0), x.size(2)}, type)
                          : torch::stable::new_empty(x, {x.size(0), x.size(2)}, type);
  };
  const Tensor gamma = make(), beta = make();
  if (x.numel() == 0) return {gamma, beta};
  with_dtype(x, [&]<class E>(E) { run<E>(x, g, maybe(mean), rstd, gamma, beta); });
  return {gamma, beta};
}
}  // namespace fastrw
