// The CUDA functions of the ops, compiled for the emulator, as ops on CPU tensors: torch.ops.fastrw_on_cpu.*
#include <torch/csrc/stable/library.h>

#include "../../csrc/ops.h"
#include "emulator.h"

extern "C" void set_seed(unsigned seed) { emulator::seed = seed; }

STABLE_TORCH_LIBRARY(fastrw_on_cpu, m) {
  m.def("gram_dot(Tensor a, Tensor g, Tensor a_val, Tensor g_val, float bias) -> Tensor");
}

STABLE_TORCH_LIBRARY_IMPL(fastrw_on_cpu, CPU, m) { m.impl("gram_dot", TORCH_BOX(&fastrw::gram_dot_cuda)); }
