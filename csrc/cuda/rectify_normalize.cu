// rectify_normalize on a GPU: one launch of one block on the current stream.
#include "rectify_normalize.cuh"

#include "../checks.h"
#include "../ops.h"
#include "stream.h"

namespace fastrw {
Tensor rectify_normalize_cuda(const Tensor& s) {
  check_rectify_normalize(s);
  const DeviceGuard guard(s.get_device_index());
  const Tensor scores = torch::stable::contiguous(s);
  Tensor w = torch::stable::new_empty(s, {s.size(0)}, ScalarType::Float);
  const auto with = [&]<class E>(E) {
    gpu::launch_rectify_normalize(static_cast<const E*>(scores.const_data_ptr()),
                                  static_cast<float*>(w.mutable_data_ptr()), s.size(0), current_stream(s));
    check_launch();
    return w;
  };
  switch (s.scalar_type()) {
    case ScalarType::Float: return with(float());
    case ScalarType::Half: return with(__half());
    case ScalarType::BFloat16: return with(__nv_bfloat16());
    default: break;
  }
  check(false, "rectify_normalize: the dtype must be float32, bfloat16 or float16 on a GPU, got ", dtype(s));
  return s;
}
}  // namespace fastrw
