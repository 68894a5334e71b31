// The functions that serve the ops, one per device. Legend: n train examples, m validation examples, r train rows,
// k validation rows, p in-features, q out-features, a inputs, g output-gradients, V validation gradient.
#pragma once
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>
#include <vector>

namespace fastrw {
using torch::stable::Tensor;
using Maybe = std::optional<Tensor>;

// s_r = sum_k (a_r.a_k + bias)(g_r.g_k): a [r, p], g [r, q], a_val [k, p], g_val [k, q] -> s [r]
Tensor gram_dot_cpu(const Tensor& a, const Tensor& g, const Tensor& a_val, const Tensor& g_val, double bias);
Tensor gram_dot_cuda(const Tensor& a, const Tensor& g, const Tensor& a_val, const Tensor& g_val, double bias);

// s_i = sum of s_r over uses and over the rows of example i -> s [n]. tf32 matters on a GPU only.
Tensor grouped_gram_dot_cpu(const std::vector<Tensor>& a, const std::vector<Tensor>& g,
                            const std::vector<Tensor>& a_val, const std::vector<Tensor>& g_val,
                            const std::vector<double>& bias, int64_t n, bool tf32);
Tensor grouped_gram_dot_cuda(const std::vector<Tensor>& a, const std::vector<Tensor>& g,
                             const std::vector<Tensor>& a_val, const std::vector<Tensor>& g_val,
                             const std::vector<double>& bias, int64_t n, bool tf32);

// the same of whole rows: those of n train examples, then those of m validation examples
Tensor joint_gram_dot_cpu(const std::vector<Tensor>& a, const std::vector<Tensor>& g, const std::vector<double>& bias,
                          int64_t n, int64_t m, bool tf32);
Tensor joint_gram_dot_cuda(const std::vector<Tensor>& a, const std::vector<Tensor>& g, const std::vector<double>& bias,
                           int64_t n, int64_t m, bool tf32);

// s_r = g_r.(V a_r + v_b): a [r, p], g [r, q], V [q, p], v_b [q] -> s [r]
Tensor project_dot_cpu(const Tensor& a, const Tensor& g, const Tensor& V, const std::optional<Tensor>& v_b);

// W = sum_r w_r g_r a_r^T, b = sum_r w_r g_r: a [r, p], g [r, q], w [r] -> W [q, p], b [q]
std::tuple<Tensor, Tensor> weighted_outer_cpu(const Tensor& a, const Tensor& g, const std::optional<Tensor>& w);

// the same of each use, w [n] by example: all W, then all b
std::vector<Tensor> grouped_weighted_outer_cpu(const std::vector<Tensor>& a, const std::vector<Tensor>& g,
                                               const Tensor& w);

// convolutions: x [n, C, *size], g [n, O, *size out], V [O, C / groups, *kernel], of 1 or 2 dimensions
using Ints = std::vector<int64_t>;

// s_i = <g_i, conv(x, V)_i + v_b> -> [n]
Tensor conv_dot_cpu(const Tensor& x, const Tensor& g, const Tensor& V, const std::optional<Tensor>& v_b,
                    const Ints& stride, const Ints& padding, const Ints& dilation, int64_t groups);
Tensor conv_dot_cuda(const Tensor& x, const Tensor& g, const Tensor& V, const std::optional<Tensor>& v_b,
                     const Ints& stride, const Ints& padding, const Ints& dilation, int64_t groups);

// sum_i w_i G_i -> [O, C / groups, *kernel]
Tensor conv_outer_cpu(const Tensor& x, const Tensor& g, const std::optional<Tensor>& w, const Ints& kernel,
                      const Ints& stride, const Ints& padding, const Ints& dilation, int64_t groups);

// -> s [n] = <G_i, V>, G [n, O, C / groups, *kernel], V
std::tuple<Tensor, Tensor, Tensor> conv_instance_cpu(const Tensor& x, const Tensor& g, int64_t n,
                                                     const std::optional<Tensor>& V, const Ints& kernel,
                                                     const Ints& stride, const Ints& padding, const Ints& dilation,
                                                     int64_t groups);

// sum_i w_i G_i: G [n, ...], w [n] -> [...]
Tensor combine_cpu(const Tensor& G, const Tensor& w);
std::vector<Tensor> grouped_combine_cpu(const std::vector<Tensor>& G, const Tensor& w);

// t_y = conv(x, V) + v_b + conv(t, W) like y, and [2, O]: the sums of t_y and of t_y y over examples and positions
std::tuple<Tensor, Tensor> conv_tangent_cpu(const Tensor& x, const Tensor& V, const std::optional<Tensor>& v_b,
                                            const std::optional<Tensor>& t, const std::optional<Tensor>& W,
                                            const Tensor& y, const Ints& stride, const Ints& padding,
                                            const Ints& dilation, int64_t groups);

// s_i = sum g (x_hat V_gamma + V_beta), x_hat = (x - mean) rstd: x, g [n, S, C], mean, rstd [n, S, G] -> s [n]
Tensor norm_dot_cpu(const Tensor& x, const Tensor& g, const Maybe& mean, const Tensor& rstd, const Maybe& V_gamma,
                    const Maybe& V_beta);
Tensor norm_dot_cuda(const Tensor& x, const Tensor& g, const Maybe& mean, const Tensor& rstd, const Maybe& V_gamma,
                     const Maybe& V_beta);

// sum_S g x_hat and sum_S g -> [n, C], [n, C]
std::tuple<Tensor, Tensor> norm_instance_cpu(const Tensor& x, const Tensor& g, const Maybe& mean, const Tensor& rstd);
std::tuple<Tensor, Tensor> norm_instance_cuda(const Tensor& x, const Tensor& g, const Maybe& mean, const Tensor& rstd);

// s_r = g_r . V[idx_r], 0 where idx_r is padding_idx: idx [r], g [r, q], V [v, q] -> s [r]
Tensor embedding_dot_cpu(const Tensor& idx, const Tensor& g, const Tensor& V, int64_t padding_idx);
Tensor embedding_dot_cuda(const Tensor& idx, const Tensor& g, const Tensor& V, int64_t padding_idx);

// w_i = max(s_i, 0) / sum_k max(s_k, 0), 0 where s_i is not finite: s [n] -> w [n]
Tensor rectify_normalize_cpu(const Tensor& s);
Tensor rectify_normalize_cuda(const Tensor& s);

// weight rstd (t - mean(t) - x_hat mean(x_hat t)) + d_weight x_hat + d_bias + residual, 0 where output <= 0: like x
Tensor batch_norm_tangent_cpu(const Tensor& x, const Maybe& t, const Tensor& mean, const Tensor& rstd,
                              const Maybe& weight, const Maybe& d_weight, const Maybe& d_bias, const Maybe& residual,
                              const Maybe& output, const Maybe& sums);
}  // namespace fastrw
