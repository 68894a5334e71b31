// gram_dot on a GPU: checks, then one launch on the current stream (a CUDA graph may capture it).
#include "gram_dot.cuh"

#include "../ops.h"
#include "dtypes.h"
#include "gram_uses.h"
#include "stream.h"

namespace fastrw {
Tensor gram_dot_cuda(const Tensor& a, const Tensor& g, const Tensor& a_val, const Tensor& g_val, double bias) {
  check_gram_dot(a, g, a_val, g_val);
  const DeviceGuard guard(a.get_device_index());
  const Tensor matrices[] = {rows(a), rows(g), rows(a_val), rows(g_val)};
  return gpu::with_dtype("gram_dot", a, [&]<class E>(E) {
    using HOW = std::conditional_t<std::is_same_v<E, float>, gpu::Plain, gpu::Matrix>;
    const int64_t r = a.size(0);
    Tensor s = torch::stable::new_empty(a, {r}, ScalarType::Float);
    if (r == 0) return s;
    const auto& [a, g, a_val, g_val] = matrices;
    gpu::launch_gram_dot<E, HOW, 1>({gpu::entry("gram_dot", a, g, a_val, g_val, bias, r, 0)},
                                    static_cast<float*>(s.mutable_data_ptr()), 0, current_stream(a));
    check_launch();
    return s;
  });
}
}  // namespace fastrw
