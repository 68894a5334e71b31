// The CUDA functions of the ops, compiled for the emulator, as ops on CPU tensors: torch.ops.fastrw_on_cpu.*
#include <torch/csrc/stable/library.h>

#include "../../csrc/ops.h"
#include "emulator.h"

extern "C" void set_seed(unsigned seed) { emulator::seed = seed; }

STABLE_TORCH_LIBRARY(fastrw_on_cpu, m) {
  m.def("gram_dot(Tensor a, Tensor g, Tensor a_val, Tensor g_val, float bias) -> Tensor");
  m.def(
      "grouped_gram_dot(Tensor[] a, Tensor[] g, Tensor[] a_val, Tensor[] g_val, float[] bias, int n, bool tf32=False) "
      "-> Tensor");
  m.def("joint_gram_dot(Tensor[] a, Tensor[] g, float[] bias, int n, int m, bool tf32=False) -> Tensor");
  m.def(
      "conv_dot(Tensor x, Tensor g, Tensor V, Tensor? v_b, int[] stride, int[] padding, int[] dilation, int groups) "
      "-> Tensor");
  m.def("norm_dot(Tensor x, Tensor g, Tensor? mean, Tensor rstd, Tensor? V_gamma, Tensor? V_beta) -> Tensor");
  m.def("norm_instance(Tensor x, Tensor g, Tensor? mean, Tensor rstd) -> (Tensor, Tensor)");
  m.def("embedding_dot(Tensor idx, Tensor g, Tensor V, int padding_idx=-1) -> Tensor");
  m.def("rectify_normalize(Tensor s) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(fastrw_on_cpu, CPU, m) {
  m.impl("gram_dot", TORCH_BOX(&fastrw::gram_dot_cuda));
  m.impl("grouped_gram_dot", TORCH_BOX(&fastrw::grouped_gram_dot_cuda));
  m.impl("joint_gram_dot", TORCH_BOX(&fastrw::joint_gram_dot_cuda));
  m.impl("conv_dot", TORCH_BOX(&fastrw::conv_dot_cuda));
  m.impl("norm_dot", TORCH_BOX(&fastrw::norm_dot_cuda));
  m.impl("norm_instance", TORCH_BOX(&fastrw::norm_instance_cuda));
  m.impl("embedding_dot", TORCH_BOX(&fastrw::embedding_dot_cuda));
  m.impl("rectify_normalize", TORCH_BOX(&fastrw::rectify_normalize_cuda));
}
