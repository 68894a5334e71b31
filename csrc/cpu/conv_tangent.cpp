// conv_tangent on the CPU: both convolutions in one accumulation, an example at a time; the channel sums are taken as
// its values are brought into y's layout. Sums of examples are added up in their order.
#include <torch/csrc/stable/ops.h>

#include <tuple>

#include "../conv_checks.h"
#include "../ops.h"
#include "conv_values.h"
#include "dense.h"

namespace fastrw {
namespace {
// what packs t: of x's dtype, or of that of the sums
template <class T> using Pack = void (*)(Isa, const ConvPlan&, const void*, const ConvStrides&, int64_t, int64_t,
                                         const int32_t*, T*);

template <class E>
void pack_example(Isa level, const ConvPlan& plan, const void* t, const ConvStrides& at, int64_t example, int64_t b,
                  const int32_t* place, sum_t<E>* packed) {
  FASTRW_SELECT_AT(level, pack_inputs<E>)(plan, static_cast<const E*>(t) + example * at.example, at, b, place, packed);
}

template <class E>
std::tuple<Tensor, Tensor> run(ConvUse& use, const Tensor& V, const std::optional<Tensor>& v_b,
                               const std::optional<Tensor>& t, const std::optional<Tensor>& W, ScalarType sums) {
  using T = sum_t<E>;
  const ConvPlan& plan = use.plan;
  const int64_t n = use.x.size(0), O = plan.O;
  const ConvPanels<T> V_panels(use, V, sums), W_panels(use, W.has_value() ? *W : V, sums);
  const std::vector<T> bias = conv_bias<T>(plan, v_b, sums);
  const bool last = V.dim() == 4 && channels_last(use.g) && !use.g.is_contiguous();
  if (!last && use.g_at.position != 1) {
    use.g = torch::stable::contiguous(use.g);
    use.g_at = {O * plan.positions, plan.positions, 1};
  }
  const ConvStrides out_at = {O * plan.positions, last ? 1 : plan.positions, last ? O : 1};
  Tensor t_y =
      torch::stable::new_empty(use.g, last ? Ints{n, plan.Ho, plan.Wo, O} : Ints{n, O, plan.Ho, plan.Wo}, sums);
  Tensor total = torch::stable::new_zeros(use.g, {2, O}, sums);
  std::vector<T> each(n * 2 * O);

  Tensor t_four = t.has_value() ? conv_four(*t) : use.x;
  const ConvStrides x_at = use.x_at, t_at = conv_strides(t_four), y_at = use.g_at;
  const bool wide = t.has_value() && t->scalar_type() == sums;
  const Pack<T> pack_x = pack_example<E>, pack_t = wide ? pack_example<T> : pack_example<E>;
  const Isa level = use.level;
  const auto values = FASTRW_SELECT_AT(use.level, conv_values<T>);
  const auto unpack = FASTRW_SELECT_AT(use.level, unpack_values<E>);
  const void *x = use.x.const_data_ptr(), *t_data = t.has_value() ? t_four.const_data_ptr() : nullptr;
  const auto* y = pointer<E>(use.g);
  const T *v = V_panels.get(), *w = W_panels.get(), *b_v = bias.empty() ? nullptr : bias.data();
  const int64_t block = V_panels.block();
  const int32_t* place = use.place.data();
  const int64_t* starts = use.starts.data();
  T *out = mutable_pointer<T>(t_y), *to_sums = each.data();
  torch::stable::parallel_for(0, n, 1, [=, &plan](int64_t from, int64_t to) {
    const Scratch<T> xs(plan.x_size), ts(plan.x_size), vs(plan.g_size);
    std::fill_n(xs.data(), plan.x_size, T(0));
    std::fill_n(ts.data(), plan.x_size, T(0));
    for (int64_t i = from; i < to; ++i)
      for (int64_t b = 0; b < plan.blocks; ++b) {
        pack_x(level, plan, x, x_at, i, b, place, xs.data());
        if (t_data != nullptr) pack_t(level, plan, t_data, t_at, i, b, place, ts.data());
        values(plan, {xs.data(), v + b * block}, {t_data == nullptr ? nullptr : ts.data(), w + b * block}, b, b_v,
               starts, vs.data());
        unpack(plan, vs.data(), b, y + i * y_at.example, y_at, out + i * out_at.example, out_at, to_sums + i * 2 * O);
      }
  });
  T* sum = mutable_pointer<T>(total);
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < 2 * O; ++j) sum[j] += to_sums[i * 2 * O + j];
  if (last) t_y = torch::stable::transpose(torch::stable::transpose(t_y, 1, 3), 2, 3);
  return {V.dim() == 3 ? torch::stable::select(t_y, 2, 0) : t_y, total};
}
}  // namespace

std::tuple<Tensor, Tensor> conv_tangent_cpu(const Tensor& x, const Tensor& V, const std::optional<Tensor>& v_b,
                                            const std::optional<Tensor>& t, const std::optional<Tensor>& W,
                                            const Tensor& y, const Ints& stride, const Ints& padding,
                                            const Ints& dilation, int64_t groups) {
  check_tensors("conv_tangent", {{"x", "nC*", &x},
                                 {"V", "O*", &V, Spelled::wide},
                                 {"v_b", "O", maybe(v_b), Spelled::wide},
                                 {"t", "nC*", maybe(t), Spelled::wide},
                                 {"W", "O*", maybe(W), Spelled::wide},
                                 {"y", "nO*", &y}});
  check(t.has_value() == W.has_value(), "conv_tangent: t and W must be given together, got one alone");
  const Ints kernel = checked_kernel("conv_tangent", x, V, groups, "V");
  ConvUse use = conv_use("conv_tangent", x, y, "y", kernel, stride, padding, dilation, groups);
  check_alike("conv_tangent", "x", x, {{"t", "nC*", maybe(t)}});
  check_alike("conv_tangent", "V", V, {{"W", "O*", maybe(W)}});
  return with_dtype(x, [&]<class E>(E) { return run<E>(use, V, v_b, t, W, sums(x.scalar_type())); });
}
}  // namespace fastrw
