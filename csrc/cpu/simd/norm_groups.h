// The statistics of one example, channel after channel, where they do not vary along S. Only for sources under simd.
#pragma once
#include "norm.h"
#include "vector.h"

namespace fastrw::FASTRW_LEVEL {
template <class E> struct Groups {
  using T = sum_t<E>;
  const T *mean, *rstd;
  int64_t mean_step, rstd_step, width, left;

  Groups(const Norm<E>& use, int64_t i)
      : mean(use.mean + i * use.mean_n),
        rstd(use.rstd + i * use.rstd_n),
        mean_step(use.mean_group),
        rstd_step(use.rstd_group),
        width(use.C / use.G),
        left(width) {}

  void next(T& mean_of, T& rstd_of) {
    if (left == 0) mean += mean_step, rstd += rstd_step, left = width;
    --left;
    mean_of = *mean, rstd_of = *rstd;
  }
};
}  // namespace fastrw::FASTRW_LEVEL
