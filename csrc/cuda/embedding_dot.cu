// embedding_dot on a GPU: checks, then one launch.
#include "embedding_dot.cuh"

#include "../ops.h"
#include "dtypes.h"
#include "stream.h"

namespace fastrw {
Tensor embedding_dot_cuda(const Tensor& idx, const Tensor& g, const Tensor& V, int64_t padding_idx) {
  check_embedding_dot(idx, g, V);
  const DeviceGuard guard(g.get_device_index());
  const auto with = [&]<class E, class F>(E, F) {
    const Tensor gs = rows(g), vs = rows(V);
    Tensor s = torch::stable::new_empty(g, {g.size(0)}, ScalarType::Float);
    gpu::launch_embedding_dot<E, F>(
        {idx.const_data_ptr(), static_cast<const E*>(gs.const_data_ptr()), static_cast<const F*>(vs.const_data_ptr()),
         static_cast<float*>(s.mutable_data_ptr()), g.size(0), g.size(1), V.size(0), idx.stride(0), gs.stride(0),
         vs.stride(0), padding_idx, idx.scalar_type() == ScalarType::Int, 1},
        current_stream(g));
    check_launch();
    return s;
  };
  return gpu::with_dtype("embedding_dot", g, [&]<class E>(E) {
    return V.scalar_type() == ScalarType::Float ? with(E(), float()) : with(E(), E());
  });
}
}  // namespace fastrw
