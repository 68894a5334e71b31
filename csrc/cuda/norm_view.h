// How the kernels of the norms are to read what they were given: in place wherever channels or positions are next to
// each other in memory, statistics in float32, a stride of 0 where they do not vary.
#pragma once
#include <torch/csrc/stable/ops.h>

#include "../checks.h"
#include "norm.cuh"

namespace fastrw::gpu {
inline Tensor swapped(const Tensor& t) { return torch::stable::transpose(t, 1, 2); }

inline Tensor vector_of_floats(const Tensor& t) {
  const Tensor wide = t.scalar_type() == ScalarType::Float ? t : torch::stable::to(t, ScalarType::Float);
  return torch::stable::contiguous(wide);
}

// float32, narrowed to one element in each dimension where it does not vary
inline Tensor narrowed(Tensor t) {
  if (t.scalar_type() == ScalarType::Float) return t;
  for (int64_t d = 0; d < 3; ++d)
    if (t.size(d) > 1 && t.stride(d) == 0) t = torch::stable::narrow(t, d, 0, 1);
  return torch::stable::to(t, ScalarType::Float);
}

inline Statistic statistic(const Tensor& t) {
  const auto stride = [&](int64_t d) { return t.size(d) > 1 ? t.stride(d) : 0; };
  return {static_cast<const float*>(t.const_data_ptr()), stride(0), stride(1), stride(2)};
}

// The view, and what it points to.
template <class E> struct NormView {
  Tensor x, g, mean, rstd;
  Norm<E> use;

  NormView(const char* op, const Tensor& given_x, const Tensor& given_g, const Tensor* given_mean,
           const Tensor& given_rstd)
      : x(given_x), g(given_g), mean(narrowed(given_mean ? *given_mean : given_rstd)), rstd(narrowed(given_rstd)) {
    const int64_t n = x.size(0), S = x.size(1), C = x.size(2), G = given_rstd.size(2);
    for (int64_t size : {S, C}) check(size < int64_t(1) << 31, op, ": sizes must be below 2^31 on a GPU, got ", size);
    const Statistic of_mean = statistic(mean), of_rstd = statistic(rstd);
    const auto next = [](const Tensor& t, int64_t d) { return t.size(d) <= 1 || t.stride(d) == 1; };
    const bool fixed = of_rstd.position == 0 && (!given_mean || of_mean.position == 0);
    const bool positions = fixed && next(x, 1) && (!next(x, 2) || S > C);
    for (Tensor* t : {&x, &g})
      if (!next(*t, positions ? 1 : 2))
        *t = positions ? swapped(torch::stable::contiguous(swapped(*t))) : torch::stable::contiguous(*t);
    const int64_t row = positions ? 2 : 1, rows = x.size(row), columns = x.size(3 - row);
    const auto* x_data = static_cast<const E*>(x.const_data_ptr());
    const auto* g_data = static_cast<const E*>(g.const_data_ptr());
    use = {x_data,
           g_data,
           x.stride(0),
           x.stride(row),
           g.stride(0),
           g.stride(row),
           of_mean,
           of_rstd,
           n,
           static_cast<int>(rows),
           static_cast<int>(columns),
           static_cast<int>(C / G),
           !positions,
           false,
           1};
    if (!given_mean) use.mean.data = nullptr;
    use.wide = wide(x_data, use.x_example) && wide(x_data, use.x_row) && wide(g_data, use.g_example) &&
               wide(g_data, use.g_row) && (positions || G == 1 || use.of_group % PACK<E> == 0);
    while (use.lanes < (rows < WARPS ? THREADS : LANES) && use.lanes * PACK<E> < columns) use.lanes *= 2;
  }
};
}  // namespace fastrw::gpu
