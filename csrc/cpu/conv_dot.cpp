// conv_dot on the CPU: conv(x, V) tile by tile, each tile dotted with its g while in registers, never written.
#include <torch/csrc/stable/ops.h>

#include "../conv_checks.h"
#include "../ops.h"
#include "conv_values.h"
#include "simd/conv_pack.h"

namespace fastrw {
namespace {
template <class E>
Tensor run(const ConvUse& use, const Tensor& V, const std::optional<Tensor>& v_b, ScalarType sums) {
  using T = sum_t<E>;
  const ConvPlan& plan = use.plan;
  const int64_t n = use.x.size(0);
  Tensor s = torch::stable::new_zeros(use.x, {n}, sums);
  const ConvPanels<T> panels(use, V, sums);
  const std::vector<T> bias = conv_bias<T>(plan, v_b, sums);
  const auto pack_x = FASTRW_SELECT_AT(use.level, pack_inputs<E>);
  const auto pack_g = FASTRW_SELECT_AT(use.level, pack_gradients<E>);
  const auto dot = FASTRW_SELECT_AT(use.level, conv_dot<T>);
  const auto* x = pointer<E>(use.x);
  const auto* g = pointer<E>(use.g);
  const T *v = panels.get(), *b_v = bias.empty() ? nullptr : bias.data();
  const int64_t block = panels.block();
  const int32_t* place = use.place.data();
  const int64_t* starts = use.starts.data();
  const ConvStrides x_at = use.x_at, g_at = use.g_at;
  T* out = mutable_pointer<T>(s);
  torch::stable::parallel_for(0, n, 1, [=, &plan](int64_t from, int64_t to) {
    const Scratch<T> xs(plan.x_size), gs(plan.g_size);
    std::fill_n(xs.data(), plan.x_size, T(0));
    for (int64_t i = from; i < to; ++i)
      for (int64_t b = 0; b < plan.blocks; ++b) {
        pack_x(plan, x + i * x_at.example, x_at, b, place, xs.data());
        pack_g(plan, g + i * g_at.example, g_at, b, 0, plan.vectors, T(1), gs.data());
        out[i] += dot(plan, {xs.data(), v + b * block}, b, b_v, starts, gs.data());
      }
  });
  return s;
}
}  // namespace

Tensor conv_dot_cpu(const Tensor& x, const Tensor& g, const Tensor& V, const std::optional<Tensor>& v_b,
                    const Ints& stride, const Ints& padding, const Ints& dilation, int64_t groups) {
  check_tensors(
      "conv_dot",
      {{"x", "nC*", &x}, {"g", "nO*", &g}, {"V", "O*", &V, Spelled::wide}, {"v_b", "O", maybe(v_b), Spelled::wide}});
  const Ints kernel = checked_kernel("conv_dot", x, V, groups, "V");
  const ConvUse use = conv_use("conv_dot", x, g, "g", kernel, stride, padding, dilation, groups);
  return with_dtype(x, [&]<class E>(E) { return run<E>(use, V, v_b, sums(x.scalar_type())); });
}
}  // namespace fastrw
