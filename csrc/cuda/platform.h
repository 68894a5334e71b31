// What kernels take from CUDA: from the toolkit under nvcc, from the emulator of tests/cuda_on_cpu under g++.
// The one thing that g++ cannot read is <<<>>>: kernels are launched by FASTRW_LAUNCH.
#pragma once
#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>
#define FASTRW_LAUNCH(kernel, grid, block, stream, ...) kernel<<<grid, block, 0, stream>>>(__VA_ARGS__)
#else
#include "emulator.h"
#endif
