// Examples as rows of memory: how an elementwise sum over each of them may be walked.
#pragma once
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <algorithm>
#include <numeric>
#include <vector>

namespace fastrw::gpu {
// Two tensors [n, ...] whose examples lie dense in memory, their elements in the same order: as given, or copied.
struct Examples {
  torch::stable::Tensor x, y;
  int64_t n, columns;

  Examples(const torch::stable::Tensor& given_x, const torch::stable::Tensor& given_y)
      : x(given_x), y(given_y), n(given_x.size(0)), columns(1) {
    bool alike = true;
    for (int64_t d = 1; d < x.dim(); ++d) {
      columns *= x.size(d);
      alike = alike && (x.size(d) <= 1 || x.stride(d) == y.stride(d));
    }
    if (alike && dense(x)) return;
    x = torch::stable::contiguous(x), y = torch::stable::contiguous(y);
  }

  static bool dense(const torch::stable::Tensor& t) {
    std::vector<int64_t> dims(t.dim() - 1);
    std::iota(dims.begin(), dims.end(), 1);
    std::sort(dims.begin(), dims.end(), [&](int64_t a, int64_t b) { return t.stride(a) < t.stride(b); });
    int64_t expected = 1;
    for (int64_t d : dims) {
      if (t.size(d) > 1 && t.stride(d) != expected) return false;
      expected *= t.size(d);
    }
    return true;
  }
};
}  // namespace fastrw::gpu
