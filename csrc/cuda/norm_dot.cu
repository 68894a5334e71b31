// norm_dot on a GPU: checks, then one launch, or two where an example takes several blocks.
#include "norm_dot.cuh"

#include "../ops.h"
#include "dtypes.h"
#include "norm_view.h"
#include "stream.h"

namespace fastrw {
Tensor norm_dot_cuda(const Tensor& x, const Tensor& g, const Maybe& mean, const Tensor& rstd, const Maybe& V_gamma,
                     const Maybe& V_beta) {
  check_norm_dot(x, g, maybe(mean), rstd, maybe(V_gamma), maybe(V_beta));
  const DeviceGuard guard(x.get_device_index());
  return gpu::with_dtype("norm_dot", x, [&]<class E>(E) {
    const gpu::NormView<E> view("norm_dot", x, g, maybe(mean), rstd);
    const auto floats = [&](int64_t size) { return torch::stable::new_empty(x, {size}, ScalarType::Float); };
    const auto data = [](const Tensor& t) { return static_cast<float*>(t.mutable_data_ptr()); };
    const int64_t n = x.size(0), chunks = gpu::norm_chunks(view.use);
    const Tensor s = floats(n), partial = chunks == 1 ? s : floats(n * chunks);
    const Tensor gamma = V_gamma ? gpu::vector_of_floats(*V_gamma) : s;
    const Tensor beta = V_beta ? gpu::vector_of_floats(*V_beta) : s;
    const auto given = [](bool is, const Tensor& t) {
      return is ? static_cast<const float*>(t.const_data_ptr()) : nullptr;
    };
    gpu::launch_norm_dot(view.use, given(V_gamma.has_value(), gamma), given(V_beta.has_value(), beta), data(partial),
                         chunks, data(s), current_stream(x));
    check_launch();
    return s;
  });
}
}  // namespace fastrw
