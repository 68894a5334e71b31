// conv_outer on the CPU: examples of weight 0 are left out, the others are shared out to threads in chunks that each
// sum for themselves; the chunks are added up in their order. Their number is that of torch's threads.
#include "conv_outer.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>

#include "../ops.h"
#include "simd/conv_pack.h"
#include "simd/conv_weight.h"

namespace fastrw {
namespace {
constexpr int64_t TOGETHER = 256 << 10;  // bytes of packed examples that one pass of the tiles goes through
constexpr int64_t PARTIALS = 64 << 20;   // bytes of partial sums, at most
}  // namespace

template <class E>
std::vector<sum_t<E>> conv_outer_sum(const ConvUse& use, const std::vector<int64_t>& examples, const sum_t<E>* w) {
  using T = sum_t<E>;
  const ConvPlan& plan = use.plan;
  const int64_t count = examples.size(), size = plan.taps * plan.Op + SLACK;
  const int64_t threads = torch::stable::get_num_threads(), most = PARTIALS / int64_t(sizeof(T)) / size;
  const int64_t chunks = std::max<int64_t>(1, std::min({threads, count, most}));
  const int64_t panels = (plan.vectors + PANEL_VECTORS - 1) / PANEL_VECTORS;
  const int64_t parts = std::max<int64_t>(1, std::min(panels, threads / chunks));  // chunks too large to be many
  const int64_t together = std::clamp<int64_t>(TOGETHER / int64_t(sizeof(T)) / (plan.x_size + plan.g_size + 1), 1, 16);
  std::vector<T> partial(chunks * size);
  if (count > 0 && plan.positions > 0 && size > SLACK) {
    const auto pack_x = FASTRW_SELECT_AT(use.level, pack_inputs<E>);
    const auto pack_g = FASTRW_SELECT_AT(use.level, pack_gradients<E>);
    const auto kernel = FASTRW_SELECT_AT(use.level, conv_weight<T>);
    const auto* x = pointer<E>(use.x);
    const auto* g = pointer<E>(use.g);
    const int64_t* rows = examples.data();
    const int32_t* place = use.place.data();
    const ConvStrides x_at = use.x_at, g_at = use.g_at;
    T* sum = partial.data();
    torch::stable::parallel_for(0, chunks * parts, 1, [=, &plan](int64_t from, int64_t to) {
      const Scratch<T> xs(together * plan.x_size), gs(together * plan.g_size);
      std::fill_n(xs.data(), together * plan.x_size, T(0));
      for (int64_t item = from; item < to; ++item) {
        const int64_t chunk = item / parts, part = item % parts;
        const int64_t first = panels * part / parts * PANEL_VECTORS;
        const int64_t last = std::min(plan.vectors, panels * (part + 1) / parts * PANEL_VECTORS);
        const int64_t end = count * (chunk + 1) / chunks;
        for (int64_t b = 0; b < plan.blocks; ++b)
          for (int64_t i = count * chunk / chunks, begin = i; i < end; i += together) {
            const int64_t now = std::min(together, end - i);
            for (int64_t e = 0; e < now; ++e) {
              const int64_t row = rows[i + e];
              pack_x(plan, x + row * x_at.example, x_at, b, place, xs.data() + e * plan.x_size);
              pack_g(plan, g + row * g_at.example, g_at, b, first, last, w == nullptr ? T(1) : w[row],
                     gs.data() + e * plan.g_size);
            }
            kernel(plan, {xs.data(), gs.data(), now, b, first, last, sum + chunk * size, nullptr, i > begin});
          }
      }
    });
  }
  for (int64_t chunk = 1; chunk < chunks; ++chunk)
    for (int64_t i = 0; i < size; ++i) partial[i] += partial[chunk * size + i];
  partial.resize(size);
  return partial;
}

template <class T> Tensor conv_weight_tensor(const ConvUse& use, const T* packed, const Ints& kernel, ScalarType sums) {
  Ints shape = {use.plan.O, use.plan.c};
  shape.insert(shape.end(), kernel.begin(), kernel.end());
  Tensor V = torch::stable::new_empty(use.x, shape, sums);
  FASTRW_SELECT_AT(use.level, unpack_weight<T>)(use.plan, packed, use.tap.data(), mutable_pointer<T>(V));
  return V;
}

Tensor conv_outer_cpu(const Tensor& x, const Tensor& g, const std::optional<Tensor>& w, const Ints& kernel,
                      const Ints& stride, const Ints& padding, const Ints& dilation, int64_t groups) {
  check_tensors("conv_outer", {{"x", "nC*", &x}, {"g", "nO*", &g}, {"w", "n", maybe(w), Spelled::wide}});
  const ConvUse use = conv_use("conv_outer", x, g, "g", kernel, stride, padding, dilation, groups);
  const ScalarType type = sums(x.scalar_type());
  return with_dtype(x, [&]<class E>(E) {
    const Tensor wide = w.has_value() ? as_sums(*w, type) : x;
    const auto* weights = w.has_value() ? pointer<sum_t<E>>(wide) : nullptr;
    std::vector<int64_t> examples;
    for (int64_t i = 0; i < x.size(0); ++i)
      if (weights == nullptr || weights[i] != 0) examples.push_back(i);
    return conv_weight_tensor(use, conv_outer_sum<E>(use, examples, weights).data(), kernel, type);
  });
}

template std::vector<float> conv_outer_sum<float>(const ConvUse&, const std::vector<int64_t>&, const float*);
template std::vector<double> conv_outer_sum<double>(const ConvUse&, const std::vector<int64_t>&, const double*);
template std::vector<float> conv_outer_sum<Half>(const ConvUse&, const std::vector<int64_t>&, const float*);
template std::vector<float> conv_outer_sum<BFloat16>(const ConvUse&, const std::vector<int64_t>&, const float*);
template Tensor conv_weight_tensor(const ConvUse&, const float*, const Ints&, ScalarType);
template Tensor conv_weight_tensor(const ConvUse&, const double*, const Ints&, ScalarType);
}  // namespace fastrw
