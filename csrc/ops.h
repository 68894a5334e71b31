// The functions that serve the ops, one per device. Legend: n train examples, m validation examples, r train rows,
// k validation rows, p in-features, q out-features, a inputs, g output-gradients, V validation gradient.
#pragma once
#include <torch/csrc/stable/tensor.h>

namespace fastrw {
using torch::stable::Tensor;

// s_r = sum_k (a_r.a_k + bias)(g_r.g_k): a [r, p], g [r, q], a_val [k, p], g_val [k, q] -> s [r]
Tensor gram_dot_cpu(const Tensor& a, const Tensor& g, const Tensor& a_val, const Tensor& g_val, double bias);
Tensor gram_dot_cuda(const Tensor& a, const Tensor& g, const Tensor& a_val, const Tensor& g_val, double bias);
}  // namespace fastrw
