// grouped_gram_dot and joint_gram_dot on a GPU: checks, then two launches on the current stream (a CUDA graph may
// capture them): the scores of the rows of every use, then their sums by example.
#include "../ops.h"
#include "dtypes.h"
#include "gram_uses.h"
#include "row_sums.cuh"
#include "stream.h"

namespace fastrw {
namespace {
Tensor scores(const char* op, const std::vector<Tensor>& a, const std::vector<Tensor>& g,
              const std::vector<Tensor>& a_val, const std::vector<Tensor>& g_val, const std::vector<double>& bias,
              int64_t n, bool tf32) {
  const DeviceGuard guard(a[0].get_device_index());
  std::vector<Tensor> kept;
  std::vector<gpu::Entry> uses;
  int64_t columns = 0;  // of the partial scores: one a row of an example
  for (size_t i = 0; i < a.size() && n > 0; ++i) {
    const Tensor matrices[] = {rows(a[i]), rows(g[i]), rows(a_val[i]), rows(g_val[i])};
    const int64_t rows_per_example = a[i].size(0) / n;
    uses.push_back(
        gpu::entry(op, matrices[0], matrices[1], matrices[2], matrices[3], bias[i], rows_per_example, columns));
    columns += rows_per_example;
    kept.insert(kept.end(), matrices, matrices + 4);
  }
  const auto floats = [&](int64_t size) { return torch::stable::new_empty(a[0], {size}, ScalarType::Float); };
  const auto data = [](const Tensor& t) { return static_cast<float*>(t.mutable_data_ptr()); };
  const Tensor s = floats(n), partial = floats(n * columns);
  return gpu::with_dtype(op, a[0], [&]<class E>(E) {
    const auto with = [&]<class HOW>(HOW) {
      gpu::launch_gram_dot<E, HOW, gpu::USES>(uses, data(partial), columns, current_stream(a[0]));
    };
    if constexpr (std::is_same_v<E, float>)
      tf32 ? with(gpu::Matrix()) : with(gpu::Plain());
    else
      with(gpu::Matrix());
    gpu::launch_row_sums(data(partial), data(s), n, columns, current_stream(a[0]));
    check_launch();
    return s;
  });
}

}  // namespace

Tensor grouped_gram_dot_cuda(const std::vector<Tensor>& a, const std::vector<Tensor>& g,
                             const std::vector<Tensor>& a_val, const std::vector<Tensor>& g_val,
                             const std::vector<double>& bias, int64_t n, bool tf32) {
  check_grouped_gram_dot(a, g, a_val, g_val, bias, n);
  return scores("grouped_gram_dot", a, g, a_val, g_val, bias, n, tf32);
}

Tensor joint_gram_dot_cuda(const std::vector<Tensor>& a, const std::vector<Tensor>& g, const std::vector<double>& bias,
                           int64_t n, int64_t m, bool tf32) {
  check_joint_gram_dot(a, g, bias, n, m);
  std::vector<Tensor> training[2], validation[2];
  for (size_t i = 0; i < a.size(); ++i) {
    const int64_t r = a[i].size(0), of_training = n + m ? r / (n + m) * n : 0;
    Tensor whole[] = {a[i], g[i]};
    for (size_t j = 0; j < 2; ++j) {
      training[j].push_back(torch::stable::narrow(whole[j], 0, 0, of_training));
      validation[j].push_back(torch::stable::narrow(whole[j], 0, of_training, r - of_training));
    }
  }
  return scores("joint_gram_dot", training[0], training[1], validation[0], validation[1], bias, n, tf32);
}
}  // namespace fastrw
