// grouped_gram_dot on a GPU: checks, memory, then two launches on the current stream (a CUDA graph may capture them).
#include "grouped_gram_dot.cuh"

#include "../ops.h"
#include "gram_uses.h"
#include "stream.h"

namespace fastrw {
std::tuple<Tensor, Tensor> grouped_gram_dot_cuda(const std::vector<Tensor>& a, const std::vector<Tensor>& g,
                                                 const std::vector<Tensor>& a_val, const std::vector<Tensor>& g_val,
                                                 const std::vector<double>& bias, int64_t n, bool tf32) {
  check_grouped_gram_dot(a, g, a_val, g_val, bias, n);
  const DeviceGuard guard(a[0].get_device_index());
  std::vector<Tensor> kept;
  std::vector<gpu::Entry> uses;
  int64_t columns = 0;  // of the partial scores: one a row of an example
  for (size_t i = 0; i < a.size() && n > 0; ++i) {
    const Tensor matrices[] = {rows(a[i]), rows(g[i]), rows(a_val[i]), rows(g_val[i])};
    const int64_t neighbours = a[i].size(0) / n;
    uses.push_back(gpu::entry("grouped_gram_dot", matrices[0], matrices[1], matrices[2], matrices[3], bias[i],
                              neighbours, columns));
    columns += neighbours;
    kept.insert(kept.end(), matrices, matrices + 4);
  }
  const auto floats = [&](int64_t size) { return torch::stable::new_empty(a[0], {size}, ScalarType::Float); };
  const auto data = [](const Tensor& t) { return static_cast<float*>(t.mutable_data_ptr()); };
  const Tensor s = floats(n), w = floats(n), partial = floats(n * columns + 1);
  const auto with = [&]<class E, class HOW>(E, HOW) {
    gpu::launch_grouped_gram_dot<E, HOW>(uses, n, columns, data(partial), data(s), data(w), current_stream(a[0]));
    check_launch();
    return std::make_tuple(s, w);
  };
  switch (a[0].scalar_type()) {
    case ScalarType::Float: return tf32 ? with(float(), gpu::Matrix()) : with(float(), gpu::Plain());
    case ScalarType::Half: return with(__half(), gpu::Matrix());
    case ScalarType::BFloat16: return with(__nv_bfloat16(), gpu::Matrix());
    default: break;
  }
  check(false, "grouped_gram_dot: the dtype must be float32, bfloat16 or float16 on a GPU, got ", dtype(a[0]));
  return {};
}
}  // namespace fastrw
