// How the kernels of the norms are to read what they were given: in place wherever channels or positions are next to
// each other in memory, statistics in the dtype of the sums, a stride of 0 where they do not vary.
#pragma once
#include <torch/csrc/stable/ops.h>

#include "../checks.h"
#include "rows.h"
#include "simd/norm.h"

namespace fastrw {
constexpr int64_t NORM_GRAIN = 1 << 15;  // elements of x per thread, at least

inline Tensor swapped(const Tensor& t) { return torch::stable::transpose(t, 1, 2); }

// a mean or rstd [n, S, G]
template <class T> struct Statistic {
  static constexpr T zero = 0;
  Tensor kept;
  const T* data = &zero;
  int64_t stride[3] = {0, 0, 0};

  Statistic() = default;
  Statistic(const Tensor& given, ScalarType sums) : kept(given) {
    if (given.scalar_type() != sums) {
      for (int64_t d = 0; d < 3; ++d)  // what is expanded stays so
        if (kept.size(d) > 1 && kept.stride(d) == 0) kept = torch::stable::narrow(kept, d, 0, 1);
      kept = torch::stable::to(kept, sums);
    }
    point();
  }

  // positions next to each other
  void line_up() {
    if (stride[1] <= 1) return;  // 0: it does not vary
    kept = swapped(torch::stable::contiguous(swapped(kept)));
    point();
  }

 private:
  void point() {
    data = pointer<T>(kept);
    for (int64_t d = 0; d < 3; ++d) stride[d] = kept.size(d) > 1 ? kept.stride(d) : 0;
  }
};

template <class E> struct NormUse {
  using T = sum_t<E>;
  Tensor x, g;
  Statistic<T> mean, rstd;
  Norm<E> view;

  NormUse(const Tensor& given_x, const Tensor& given_g, const Tensor* given_mean, const Tensor& given_rstd)
      : x(given_x), g(given_g), rstd(given_rstd, sums(given_x.scalar_type())) {
    if (given_mean) mean = Statistic<T>(*given_mean, sums(x.scalar_type()));
    const int64_t n = x.size(0), S = x.size(1), C = x.size(2), G = given_rstd.size(2);
    const bool varies = mean.stride[1] != 0 || rstd.stride[1] != 0;
    const auto fits = [](const Tensor& t, int64_t d) { return t.size(d) <= 1 || t.stride(d) == 1; };
    bool positions = fits(x, 1) && fits(g, 1), channels = fits(x, 2) && fits(g, 2);
    if (positions && channels) {
      positions = S > C;
    } else if (!positions && !channels) {
      positions = fits(x, 1) || (!fits(x, 2) && fits(g, 1));
      for (Tensor* t : {&x, &g})
        if (!fits(*t, positions ? 1 : 2))
          *t = positions ? swapped(torch::stable::contiguous(swapped(*t))) : torch::stable::contiguous(*t);
    }
    if (positions && varies) mean.line_up(), rstd.line_up();
    const int64_t row = positions ? 2 : 1;
    view = {
        pointer<E>(x),
        pointer<E>(g),
        mean.data,
        rstd.data,
        n,
        S,
        C,
        G,
        x.stride(0),
        x.stride(row),
        g.stride(0),
        g.stride(row),
        mean.stride[0],
        mean.stride[1],
        mean.stride[2],
        rstd.stride[0],
        rstd.stride[1],
        rstd.stride[2],
        positions,
        varies,
    };
  }
};
}  // namespace fastrw
