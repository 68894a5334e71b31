// Every op of fastrw on one screen: its schema, and the function that serves it on each device.
#include <torch/csrc/stable/library.h>

#include "ops.h"

STABLE_TORCH_LIBRARY(fastrw, m) {
  m.def("gram_dot(Tensor a, Tensor g, Tensor a_val, Tensor g_val, float bias) -> Tensor");
  m.def(
      "grouped_gram_dot(Tensor[] a, Tensor[] g, Tensor[] a_val, Tensor[] g_val, float[] bias, int n, bool tf32=False) "
      "-> Tensor");
  m.def("joint_gram_dot(Tensor[] a, Tensor[] g, float[] bias, int n, int m, bool tf32=False) -> Tensor");
  m.def("project_dot(Tensor a, Tensor g, Tensor V, Tensor? v_b) -> Tensor");
  m.def("weighted_outer(Tensor a, Tensor g, Tensor? w) -> (Tensor, Tensor)");
  m.def("grouped_weighted_outer(Tensor[] a, Tensor[] g, Tensor w) -> Tensor[]");
  m.def(
      "conv_dot(Tensor x, Tensor g, Tensor V, Tensor? v_b, int[] stride, int[] padding, int[] dilation, int groups) "
      "-> Tensor");
  m.def(
      "conv_outer(Tensor x, Tensor g, Tensor? w, int[] kernel, int[] stride, int[] padding, int[] dilation, "
      "int groups) -> Tensor");
  m.def(
      "conv_instance(Tensor x, Tensor g, int n, Tensor? V, int[] kernel, int[] stride, int[] padding, int[] dilation, "
      "int groups) -> (Tensor, Tensor, Tensor)");
  m.def("combine(Tensor G, Tensor w) -> Tensor");
  m.def("grouped_combine(Tensor[] G, Tensor w) -> Tensor[]");
  m.def(
      "conv_tangent(Tensor x, Tensor V, Tensor? v_b, Tensor? t, Tensor? W, Tensor y, int[] stride, int[] padding, "
      "int[] dilation, int groups) -> (Tensor, Tensor)");
  m.def("norm_dot(Tensor x, Tensor g, Tensor? mean, Tensor rstd, Tensor? V_gamma, Tensor? V_beta) -> Tensor");
  m.def("norm_instance(Tensor x, Tensor g, Tensor? mean, Tensor rstd) -> (Tensor, Tensor)");
  m.def("embedding_dot(Tensor idx, Tensor g, Tensor V, int padding_idx) -> Tensor");
  m.def("rectify_normalize(Tensor s) -> Tensor");
  m.def(
      "batch_norm_tangent(Tensor x, Tensor? t, Tensor mean, Tensor rstd, Tensor? weight, Tensor? d_weight, "
      "Tensor? d_bias, Tensor? residual, Tensor? output, Tensor? sums) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(fastrw, CPU, m) {
  m.impl("gram_dot", TORCH_BOX(&fastrw::gram_dot_cpu));
  m.impl("grouped_gram_dot", TORCH_BOX(&fastrw::grouped_gram_dot_cpu));
  m.impl("joint_gram_dot", TORCH_BOX(&fastrw::joint_gram_dot_cpu));
  m.impl("project_dot", TORCH_BOX(&fastrw::project_dot_cpu));
  m.impl("weighted_outer", TORCH_BOX(&fastrw::weighted_outer_cpu));
  m.impl("grouped_weighted_outer", TORCH_BOX(&fastrw::grouped_weighted_outer_cpu));
  m.impl("conv_dot", TORCH_BOX(&fastrw::conv_dot_cpu));
  m.impl("conv_outer", TORCH_BOX(&fastrw::conv_outer_cpu));
  m.impl("conv_instance", TORCH_BOX(&fastrw::conv_instance_cpu));
  m.impl("combine", TORCH_BOX(&fastrw::combine_cpu));
  m.impl("grouped_combine", TORCH_BOX(&fastrw::grouped_combine_cpu));
  m.impl("conv_tangent", TORCH_BOX(&fastrw::conv_tangent_cpu));
  m.impl("norm_dot", TORCH_BOX(&fastrw::norm_dot_cpu));
  m.impl("norm_instance", TORCH_BOX(&fastrw::norm_instance_cpu));
  m.impl("embedding_dot", TORCH_BOX(&fastrw::embedding_dot_cpu));
  m.impl("rectify_normalize", TORCH_BOX(&fastrw::rectify_normalize_cpu));
  m.impl("batch_norm_tangent", TORCH_BOX(&fastrw::batch_norm_tangent_cpu));
}

#ifdef USE_CUDA
STABLE_TORCH_LIBRARY_IMPL(fastrw, CUDA, m) {
  m.impl("gram_dot", TORCH_BOX(&fastrw::gram_dot_cuda));
  m.impl("grouped_gram_dot", TORCH_BOX(&fastrw::grouped_gram_dot_cuda));
  m.impl("joint_gram_dot", TORCH_BOX(&fastrw::joint_gram_dot_cuda));
  m.impl("conv_dot", TORCH_BOX(&fastrw::conv_dot_cuda));
  m.impl("norm_dot", TORCH_BOX(&fastrw::norm_dot_cuda));
  m.impl("norm_instance", TORCH_BOX(&fastrw::norm_instance_cuda));
  m.impl("embedding_dot", TORCH_BOX(&fastrw::embedding_dot_cuda));
  m.impl("rectify_normalize", TORCH_BOX(&fastrw::rectify_normalize_cuda));
}
#endif
