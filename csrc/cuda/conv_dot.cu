// conv_dot on a GPU: torch's convolution of x with V in float32 (16-bit numbers are exact in it, and in TF32), then its
// products with g summed by example without a product in memory.
#include <torch/csrc/stable/library.h>

#include <array>

#include "../conv_checks.h"
#include "../ops.h"
#include "dtypes.h"
#include "example_dot.cuh"
#include "examples.h"
#include "stream.h"

namespace fastrw {
namespace {
Tensor convolution(const Tensor& x, const Tensor& V, const std::optional<Tensor>& v_b, const Ints& stride,
                   const Ints& padding, const Ints& dilation, int64_t groups) {
  using torch::stable::detail::from;
  const auto wide = [](const Tensor& t) { return torch::stable::to(t, ScalarType::Float); };
  const std::optional<Tensor> bias = v_b ? std::make_optional(wide(*v_b)) : std::nullopt;
  const Ints no_output_padding(stride.size(), 0);
  std::array<StableIValue, 9> stack{from(wide(x)), from(wide(V)),           from(bias),
                                    from(stride),  from(padding),           from(dilation),
                                    from(false),   from(no_output_padding), from(groups)};
  TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::convolution", "", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}
}  // namespace

Tensor conv_dot_cuda(const Tensor& x, const Tensor& g, const Tensor& V, const std::optional<Tensor>& v_b,
                     const Ints& stride, const Ints& padding, const Ints& dilation, int64_t groups) {
  check_tensors(
      "conv_dot",
      {{"x", "nC*", &x}, {"g", "nO*", &g}, {"V", "O*", &V, Spelled::wide}, {"v_b", "O", maybe(v_b), Spelled::wide}});
  const Ints kernel = checked_kernel("conv_dot", x, V, groups, "V");
  check_geometry("conv_dot", x, g, "g", kernel, stride, padding, dilation, groups);
  const DeviceGuard guard(x.get_device_index());
  return gpu::with_dtype("conv_dot", x, [&]<class E>(E) {
    if (g.numel() == 0) return torch::stable::new_zeros(x, {x.size(0)}, ScalarType::Float);
    const gpu::Examples rows(g, convolution(x, V, v_b, stride, padding, dilation, groups));
    const auto floats = [&](int64_t size) { return torch::stable::new_empty(x, {size}, ScalarType::Float); };
    const auto data = [](const Tensor& t) { return static_cast<float*>(t.mutable_data_ptr()); };
    const int64_t n = rows.n, chunks = gpu::example_chunks<E>(n, rows.columns);
    const Tensor s = floats(n), partial = chunks == 1 ? s : floats(n * chunks);
    gpu::launch_example_dot(static_cast<const E*>(rows.x.const_data_ptr()),
                            static_cast<const float*>(rows.y.const_data_ptr()), rows.x.stride(0), rows.y.stride(0), n,
                            rows.columns, data(partial), chunks, data(s), current_stream(x));
    check_launch();
    return s;
  });
}
}  // namespace fastrw
