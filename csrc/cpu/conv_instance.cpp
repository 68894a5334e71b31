// conv_instance on the CPU: V from the validation examples, then an example's gradient a pass: packed, multiplied,
// dotted with V while in registers, and left in the tiles' own layout [KH, KW, C / groups, O and padding].
#include <torch/csrc/stable/ops.h>

#include <numeric>
#include <tuple>

#include "../conv_checks.h"
#include "../ops.h"
#include "conv_outer.h"
#include "simd/conv_pack.h"
#include "simd/conv_weight.h"
#include "workspace.h"

namespace fastrw {
namespace {
// Room for [n, O, c, *kernel] that lies [n, KH, KW, c, Op].
Tensor instances(const ConvUse& use, int64_t n, const Ints& kernel, ScalarType sums, size_t bytes) {
  const ConvPlan& p = use.plan;
  Ints shape = {n, p.O, p.c}, strides = {p.taps * p.Op, 1, p.Op};
  shape.insert(shape.end(), kernel.begin(), kernel.end());
  if (kernel.size() == 2) strides.push_back(p.KW * p.c * p.Op);
  strides.push_back(p.c * p.Op);
  void* data = take_workspace(n * p.taps * p.Op * bytes);
  return torch::stable::from_blob(data, shape, strides, use.x.device(), sums, give_workspace);
}

template <class E>
std::tuple<Tensor, Tensor, Tensor> run(const ConvUse& use, int64_t n, const std::optional<Tensor>& given,
                                       const Ints& kernel, ScalarType sums) {
  using T = sum_t<E>;
  const ConvPlan& plan = use.plan;
  const int64_t size = plan.taps * plan.Op;
  std::vector<T> packed_V;
  Tensor V;
  if (given.has_value()) {
    packed_V.resize(size + SLACK);
    V = torch::stable::clone(as_sums(*given, sums));
    FASTRW_SELECT_AT(use.level, pack_weight<T>)(plan, pointer<T>(V), use.tap.data(), packed_V.data());
  } else {
    std::vector<int64_t> validation(use.x.size(0) - n);
    std::iota(validation.begin(), validation.end(), n);
    packed_V = conv_outer_sum<E>(use, validation, nullptr);
    V = conv_weight_tensor(use, packed_V.data(), kernel, sums);
  }
  Tensor s = torch::stable::new_zeros(use.x, {n}, sums);
  const Tensor G = instances(use, n, kernel, sums, sizeof(T));
  const auto pack_x = FASTRW_SELECT_AT(use.level, pack_inputs<E>);
  const auto pack_g = FASTRW_SELECT_AT(use.level, pack_gradients<E>);
  const auto product = FASTRW_SELECT_AT(use.level, conv_weight<T>);
  const auto* x = pointer<E>(use.x);
  const auto* g = pointer<E>(use.g);
  const T* v = packed_V.data();
  const int32_t* place = use.place.data();
  const ConvStrides x_at = use.x_at, g_at = use.g_at;
  T *to_s = mutable_pointer<T>(s), *to_G = mutable_pointer<T>(G);
  torch::stable::parallel_for(0, n, 1, [=, &plan](int64_t from, int64_t to) {
    const Scratch<T> xs(plan.x_size), gs(plan.g_size);
    std::fill_n(xs.data(), plan.x_size, T(0));
    for (int64_t i = from; i < to; ++i)
      for (int64_t b = 0; b < plan.blocks; ++b) {
        pack_x(plan, x + i * x_at.example, x_at, b, place, xs.data());
        pack_g(plan, g + i * g_at.example, g_at, b, 0, plan.vectors, T(1), gs.data());
        to_s[i] += product(plan, {xs.data(), gs.data(), 1, b, 0, plan.vectors, to_G + i * size, v, false});
      }
  });
  return {s, G, V};
}
}  // namespace

std::tuple<Tensor, Tensor, Tensor> conv_instance_cpu(const Tensor& x, const Tensor& g, int64_t n,
                                                     const std::optional<Tensor>& V, const Ints& kernel,
                                                     const Ints& stride, const Ints& padding, const Ints& dilation,
                                                     int64_t groups) {
  check_tensors("conv_instance", {{"x", "NC*", &x}, {"g", "NO*", &g}, {"V", "O*", maybe(V), Spelled::wide}});
  check(n >= 0, "conv_instance: n must be 0 or more, got ", n);
  check(n <= x.size(0), "conv_instance: n must be at most the examples of x, got ", n, " and ", x.size(0));
  Ints own = kernel;
  if (V.has_value()) own = checked_kernel("conv_instance", x, *V, groups, "V");
  const ConvUse use = conv_use("conv_instance", x, g, "g", kernel, stride, padding, dilation, groups);
  check(own == kernel, "conv_instance: V must have the sizes of kernel, got shape ", V.has_value() ? shape(*V) : "");
  return with_dtype(x, [&]<class E>(E) { return run<E>(use, n, V, kernel, sums(x.scalar_type())); });
}
}  // namespace fastrw
