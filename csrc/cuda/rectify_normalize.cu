// rectify_normalize on a GPU: one launch of one block on the current stream.
#include "rectify_normalize.cuh"

#include "../ops.h"
#include "dtypes.h"
#include "stream.h"

namespace fastrw {
Tensor rectify_normalize_cuda(const Tensor& s) {
  check_tensors("rectify_normalize", {{"s", "n", &s}});
  const DeviceGuard guard(s.get_device_index());
  const Tensor scores = torch::stable::contiguous(s);
  Tensor w = torch::stable::new_empty(s, {s.size(0)}, ScalarType::Float);
  return gpu::with_dtype("rectify_normalize", s, [&]<class E>(E) {
    gpu::launch_rectify_normalize(static_cast<const E*>(scores.const_data_ptr()),
                                  static_cast<float*>(w.mutable_data_ptr()), s.size(0), current_stream(s));
    check_launch();
    return w;
  });
}
}  // namespace fastrw
