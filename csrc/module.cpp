// The Python side of the library: how it was built, and the memory that it keeps. The ops are reached through
// torch.ops.fastrw. Compiled without torch's stable ABI, under which torch's own copy of pybind11 refuses to be
// included.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <vector>

#include "cpu/isa.h"
#include "cpu/pool.h"
#include "cpu/workspace.h"

namespace py = pybind11;

static py::dict build_info() {
  py::dict info;
  info["compiler"] = FASTRW_COMPILER;
  info["flags"] = FASTRW_FLAGS;
  info["torch"] = FASTRW_TORCH;
#ifdef USE_CUDA
  info["cuda"] = FASTRW_CUDA_VERSION;
  info["cuda_archs"] = FASTRW_CUDA_ARCHS;
#else
  info["cuda"] = py::none();
  info["cuda_archs"] = py::none();
#endif
#if defined(__x86_64__)
  info["isa_levels"] = std::vector<std::string>{"baseline", "avx2", "avx512"};
#else
  info["isa_levels"] = std::vector<std::string>{"baseline"};
#endif
  info["isa"] = fastrw::isa_name(fastrw::isa());
  info["pool_threads"] = fastrw::pool_threads();
  return info;
}

PYBIND11_MODULE(_C, m) {
  m.doc() = "The compiled ops of fastrw, reached through torch.ops.fastrw.";
  m.def("build_info", &build_info, "How this library was built, and what it finds on this machine.");
  m.def("free_workspaces", &fastrw::free_workspaces, "Frees the memory kept for tensors to come; its bytes.");
  m.def("idle_workspaces", &fastrw::idle_workspaces, "Bytes of memory kept for tensors to come.");
}
