// A use of gram_dot as the kernel's table has it.
#pragma once
#include <torch/csrc/stable/ops.h>

#include <limits>

#include "../checks.h"
#include "gram_dot.cuh"

namespace fastrw::gpu {
// The matrices are those of rows(): they must live until the launch.
inline Entry entry(const char* op, const Tensor& a, const Tensor& g, const Tensor& a_val, const Tensor& g_val,
                   double bias, int64_t rows_per_example, int64_t offset) {
  for (const Tensor* t : {&a, &g, &a_val, &g_val})
    for (int64_t x : {t->size(0), t->size(1), t->stride(0)})
      check(x <= std::numeric_limits<int>::max(), op, ": sizes and strides must be below 2^31 on a GPU, got ", x);
  const auto i32 = [](int64_t x) { return static_cast<int>(x); };
  return {a.const_data_ptr(),
          g.const_data_ptr(),
          a_val.const_data_ptr(),
          g_val.const_data_ptr(),
          i32(a.size(1)),
          i32(g.size(1)),
          i32(a.size(0)),
          i32(a_val.size(0)),
          i32(a.stride(0)),
          i32(g.stride(0)),
          i32(a_val.stride(0)),
          i32(g_val.stride(0)),
          static_cast<float>(bias),
          0,
          i32(rows_per_example),
          i32(offset),
          0,
          0,
          0,
          0};
}
}  // namespace fastrw::gpu
