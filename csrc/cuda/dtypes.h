// The switch over dtypes, once for GPUs.
#pragma once
#include "../checks.h"
#include "platform.h"

namespace fastrw::gpu {
// run(E()) for the element type E of t; float64 is refused
template <class Run> auto with_dtype(const char* op, const Tensor& t, Run run) {
  switch (t.scalar_type()) {
    case ScalarType::Float: return run(float());
    case ScalarType::Half: return run(__half());
    case ScalarType::BFloat16: return run(__nv_bfloat16());
    default: break;
  }
  fail(op, ": the dtype must be float32, bfloat16 or float16 on a GPU, got ", dtype(t));
}
}  // namespace fastrw::gpu
