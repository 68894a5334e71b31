// rectify_normalize on the CPU: checks, then one thread, as scores are few.
#include <torch/csrc/stable/ops.h>

#include "../checks.h"
#include "../ops.h"
#include "isa.h"
#include "simd/rectify_normalize.h"

namespace fastrw {
Tensor rectify_normalize_cpu(const Tensor& s) {
  check_rectify_normalize(s);
  const Tensor from = s.size(0) <= 1 || s.stride(0) == 1 ? s : torch::stable::contiguous(s);
  const Tensor w = torch::stable::new_empty(s, {s.size(0)}, sums(s.scalar_type()));
  const auto with = [&]<class E>(E) {
    FASTRW_SELECT(rectify_normalize<E>)
    (static_cast<const E*>(from.const_data_ptr()), static_cast<sum_t<E>*>(w.mutable_data_ptr()), s.size(0));
  };
  switch (s.scalar_type()) {
    case ScalarType::Double: with(double()); break;
    case ScalarType::Half: with(Half()); break;
    case ScalarType::BFloat16: with(BFloat16()); break;
    default: with(float()); break;
  }
  return w;
}
}  // namespace fastrw
