// norm_instance on a GPU: checks, then one launch.
#include "norm_instance.cuh"

#include "../ops.h"
#include "dtypes.h"
#include "norm_view.h"
#include "stream.h"

namespace fastrw {
std::tuple<Tensor, Tensor> norm_instance_cuda(const Tensor& x, const Tensor& g, const Maybe& mean, const Tensor& rstd) {
  check_norm("norm_instance", x, g, maybe(mean), rstd);
  const DeviceGuard guard(x.get_device_index());
  return gpu::with_dtype("norm_instance", x, [&]<class E>(E) {
    const gpu::NormView<E> view("norm_instance", x, g, maybe(mean), rstd);
    const auto floats = [&] { return torch::stable::new_empty(x, {x.size(0), x.size(2)}, ScalarType::Float); };
    const Tensor gamma = floats(), beta = floats();
    gpu::launch_norm_instance(view.use, static_cast<float*>(gamma.mutable_data_ptr()),
                              static_cast<float*>(beta.mutable_data_ptr()), current_stream(x));
    check_launch();
    return std::make_tuple(gamma, beta);
  });
}
}  // namespace fastrw
