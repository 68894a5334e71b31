// rectify_normalize on the CPU: checks, then one thread, as scores are few.
#include <torch/csrc/stable/ops.h>

#include "../checks.h"
#include "../ops.h"
#include "dtypes.h"
#include "isa.h"
#include "simd/rectify_normalize.h"

namespace fastrw {
Tensor rectify_normalize_cpu(const Tensor& s) {
  check_tensors("rectify_normalize", {{"s", "n", &s}});
  const Tensor from = s.size(0) <= 1 || s.stride(0) == 1 ? s : torch::stable::contiguous(s);
  const Tensor w = torch::stable::new_empty(s, {s.size(0)}, sums(s.scalar_type()));
  with_dtype(s, [&]<class E>(E) {
    FASTRW_SELECT(rectify_normalize<E>)
    (pointer<E>(from), mutable_pointer<sum_t<E>>(w), s.size(0));
  });
  return w;
}
}  // namespace fastrw
