// Tensors read as they lie in memory: one decides the layout, the others follow it.
#pragma once
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>

#include "dtypes.h"

namespace fastrw {
using torch::stable::Tensor;
using Maybe = std::optional<Tensor>;

// [n, *positions, C] without gaps, as channels-last memory is; a tensor [n, C] is
inline bool channels_last(const Tensor& x) {
  int64_t expected = 1;
  const auto dense = [&](int64_t d) {
    const bool as_expected = x.size(d) == 1 || x.stride(d) == expected;
    expected *= x.size(d);
    return as_expected;
  };
  if (!dense(1)) return false;
  for (int64_t d = x.dim() - 1; d >= 2; --d)
    if (!dense(d)) return false;
  return dense(0);
}

// x itself where its channels or its positions lie side by side without gaps, else a copy
inline Tensor dense(const Tensor& x) { return channels_last(x) ? x : torch::stable::contiguous(x); }

// t laid out as x, which is dense
inline Tensor laid_out_as(const Tensor& x, const Tensor& t) {
  bool same = true;
  for (int64_t d = 0; d < x.dim(); ++d) same = same && (x.size(d) == 1 || x.stride(d) == t.stride(d));
  if (same) return t;
  Tensor out = torch::stable::empty_like(x);
  torch::stable::copy_(out, t);
  return out;
}

inline Maybe laid_out_as(const Tensor& x, const Maybe& t) { return t ? Maybe(laid_out_as(x, *t)) : t; }

template <class E> const E* pointer(const Maybe& t) { return t ? pointer<E>(*t) : nullptr; }
}  // namespace fastrw
