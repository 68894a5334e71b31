// What an op needs of torch to launch a kernel: its device made current, its stream, and the check of the launch.
#pragma once
#include <torch/csrc/stable/tensor.h>

#include "platform.h"

#ifdef __CUDACC__
#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/c/shim.h>
#include <torch/csrc/stable/macros.h>

#include <stdexcept>

// only a torch with CUDA has these: weak, so that the same library loads without
#pragma weak aoti_torch_get_current_cuda_stream
#pragma weak torch_c10_cuda_check_msg
#pragma weak torch_c10_cuda_free_error_msg

namespace fastrw {
using torch::stable::accelerator::DeviceGuard;

inline cudaStream_t current_stream(const torch::stable::Tensor& t) {
  if (aoti_torch_get_current_cuda_stream == nullptr || torch_c10_cuda_check_msg == nullptr)
    throw std::runtime_error("fastrw: the symbols of torch's CUDA library are out of reach of this build of fastrw");
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(t.get_device_index(), &stream));
  return static_cast<cudaStream_t>(stream);
}

inline void check_launch() { STD_CUDA_KERNEL_LAUNCH_CHECK(); }
}  // namespace fastrw
#else
namespace fastrw {
struct DeviceGuard {
  explicit DeviceGuard(int) {}
};
inline cudaStream_t current_stream(const torch::stable::Tensor&) { return nullptr; }
inline void check_launch() {}
}  // namespace fastrw
#endif
