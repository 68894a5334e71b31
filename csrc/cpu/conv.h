// A convolution's arguments, checked, and what its kernels need of them.
#pragma once
#include <torch/csrc/stable/tensor.h>

#include <vector>

#include "../checks.h"
#include "../ops.h"
#include "dtypes.h"
#include "isa.h"
#include "scratch.h"
#include "simd/conv.h"

namespace fastrw {
// Tensors with the letters of reference.py, and the geometry of one convolution; 1d is 2d of height 1.
struct ConvUse {
  Isa level;  // of the kernels to run
  ConvPlan plan;
  Tensor x, g;  // [n, C, H, W] and [n, O, Ho, Wo], in strides that packing reads
  ConvStrides x_at, g_at;
  std::vector<int32_t> place;   // input position -> packed position, -1: never read
  std::vector<int32_t> tap;     // c KH KW -> KH KW c
  std::vector<int64_t> starts;  // output position -> packed number that its first tap reads
};

// Checks the geometry and lays it out; raises in the words of fastrw/ops/convolution.py. `output` is g's name there.
ConvUse conv_use(const char* op, const Tensor& x, const Tensor& g, const char* output, const Ints& kernel,
                 const Ints& stride, const Ints& padding, const Ints& dilation, int64_t groups);

// [n, C, W] as [n, C, 1, W]
Tensor conv_four(const Tensor& t);

// where the examples of a [n, channels, H, W] tensor lie; contiguous() where packing could not read it
ConvStrides conv_strides(Tensor& t);

// t as contiguous numbers of the dtype of sums
Tensor as_sums(const Tensor& t, ScalarType sums);

constexpr int64_t SLACK = 16;  // numbers past the end that a last vector may touch
}  // namespace fastrw
