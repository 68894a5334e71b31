// The Python side of the library: build_info(), and nothing else. The ops are reached through torch.ops.fastrw.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/stable/ops.h>

#include <set>
#include <thread>
#include <vector>

#include "cpu/isa.h"

namespace py = pybind11;

// Threads that a parallel_for really runs on: a serial stand-in gives right results at half the speed, and no error.
static size_t pool_threads() {
  const int64_t threads = torch::stable::get_num_threads();
  std::vector<std::thread::id> seen(threads);
  std::thread::id* ids = seen.data();
  torch::stable::parallel_for(0, threads, 1, [=](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) ids[i] = std::this_thread::get_id();
  });
  return std::set<std::thread::id>(seen.begin(), seen.end()).size();
}

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
  info["pool_threads"] = pool_threads();
  return info;
}

PYBIND11_MODULE(_C, m) {
  m.doc() = "The compiled ops of fastrw, reached through torch.ops.fastrw.";
  m.def("build_info", &build_info, "How this library was built, and what it finds on this machine.");
}
