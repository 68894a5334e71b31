// The switch over dtypes, once for the CPU, and the elements of a tensor.
#pragma once
#include "../checks.h"
#include "simd/elements.h"

namespace fastrw {
// run(E()) for the element type E of t, whose dtype has been checked
template <class Run> auto with_dtype(const Tensor& t, Run run) {
  switch (t.scalar_type()) {
    case ScalarType::Double: return run(double());
    case ScalarType::Half: return run(Half());
    case ScalarType::BFloat16: return run(BFloat16());
    default: return run(float());
  }
}

template <class E> const E* pointer(const Tensor& t) { return static_cast<const E*>(t.const_data_ptr()); }
template <class E> E* mutable_pointer(const Tensor& t) { return static_cast<E*>(t.mutable_data_ptr()); }
}  // namespace fastrw
