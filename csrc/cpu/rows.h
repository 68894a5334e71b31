// Tensors as the row kernels take them.
#pragma once
#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>

#include "dtypes.h"
#include "simd/rows.h"

namespace fastrw {
using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// How many parts of `most` make a size, one at least.
inline int64_t parts(int64_t size, int64_t most) {
  return size > most ? (size - 1) / std::max<int64_t>(most, 1) + 1 : 1;
}

// The size of parts as equal as they can be, none above `most`; a multiple of `step`.
inline int64_t part(int64_t size, int64_t most, int64_t step) {
  return std::max<int64_t>(1, parts(parts(size, parts(size, most)), step)) * step;
}

template <class E> Rows<E> matrix(const Tensor& t) { return {pointer<E>(t), t.stride(0)}; }

// Elements in a line, of the type of the sums; a copy is made only where they are not.
inline Tensor vector(const Tensor& t, ScalarType type) {
  const Tensor line = t.size(0) <= 1 || t.stride(0) == 1 ? t : torch::stable::contiguous(t);
  return line.scalar_type() == type ? line : torch::stable::to(line, type);
}
}  // namespace fastrw
