// Every op of fastrw on one screen: its schema, and the function that serves it on each device.
#include <torch/csrc/stable/library.h>

#include "ops.h"

STABLE_TORCH_LIBRARY(fastrw, m) {
  m.def("gram_dot(Tensor a, Tensor g, Tensor a_val, Tensor g_val, float bias) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(fastrw, CPU, m) { m.impl("gram_dot", TORCH_BOX(&fastrw::gram_dot_cpu)); }

#ifdef USE_CUDA
STABLE_TORCH_LIBRARY_IMPL(fastrw, CUDA, m) { m.impl("gram_dot", TORCH_BOX(&fastrw::gram_dot_cuda)); }
#endif
