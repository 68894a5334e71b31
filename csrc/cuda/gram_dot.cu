// gram_dot on a GPU: checks, then one launch on the current stream (a CUDA graph may capture it).
#include "gram_dot.cuh"

#include <torch/csrc/stable/ops.h>

#include "../checks.h"
#include "../ops.h"
#include "stream.h"

namespace fastrw {
namespace {
template <class E> gram::Side<E> side(const Tensor& x, const Tensor& y) {
  return {static_cast<const E*>(x.const_data_ptr()),
          static_cast<const E*>(y.const_data_ptr()),
          x.stride(0),
          y.stride(0),
          x.size(1),
          false};
}

template <class E>
Tensor run(const Tensor& a, const Tensor& g, const Tensor& a_val, const Tensor& g_val, double bias) {
  const DeviceGuard guard(a.get_device_index());
  Tensor s = torch::stable::new_empty(a, {a.size(0)}, ScalarType::Float);
  float* sums = static_cast<float*>(s.mutable_data_ptr());
  gram::launch_gram_dot<E>(
      {side<E>(a, a_val), side<E>(g, g_val), sums, a.size(0), a_val.size(0), static_cast<float>(bias), 1},
      current_stream(a));
  check_launch();
  return s;
}
}  // namespace

Tensor gram_dot_cuda(const Tensor& a, const Tensor& g, const Tensor& a_val, const Tensor& g_val, double bias) {
  check_gram_dot(a, g, a_val, g_val);
  switch (a.scalar_type()) {
    case ScalarType::Float: return run<float>(rows(a), rows(g), rows(a_val), rows(g_val), bias);
    case ScalarType::Half: return run<__half>(rows(a), rows(g), rows(a_val), rows(g_val), bias);
    case ScalarType::BFloat16: return run<__nv_bfloat16>(rows(a), rows(g), rows(a_val), rows(g_val), bias);
    default: break;
  }
  check(false, "gram_dot: the dtype must be float32, bfloat16 or float16 on a GPU, got ", dtype(a));
  return a;
}
}  // namespace fastrw
