// The rules of a convolution's geometry, in the words of fastrw/ops/convolution.py.
#pragma once
#include <algorithm>

#include "checks.h"
#include "ops.h"

namespace fastrw {
inline std::string listed(const Ints& x) {
  std::string text = "[";
  for (size_t i = 0; i < x.size(); ++i) text += (i ? ", " : "") + std::to_string(x[i]);
  return text + "]";
}

inline void check_integers(const char* op, const char* name, const Ints& x, size_t count, int64_t least) {
  const bool holds = x.size() == count && std::all_of(x.begin(), x.end(), [=](int64_t i) { return i >= least; });
  check(holds, op, ": ", name, " must be ", count, " integers of ", least, " or more, got ", listed(x));
}

inline void check_groups(const char* op, const Tensor& t, const char* name, int64_t groups) {
  check(groups >= 1, op, ": groups must be 1 or more, got ", groups);
  check(t.size(1) % groups == 0, op, ": groups must divide the channels of ", name, ", got ", groups, " and ",
        t.size(1));
}

inline void check_dimensions(const char* op, const Tensor& x, const Tensor& t, const char* name) {
  const int64_t dims = x.dim() - 2;
  check(dims >= 1 && dims <= 3, op, ": x must have 1 to 3 dimensions after [n, C], got shape ", shape(x));
  check(t.dim() == x.dim(), op, ": ", name, " must have as many dimensions as x, got shape ", shape(t), " and ",
        shape(x));
}

// the kernel sizes of a weight
inline Ints checked_kernel(const char* op, const Tensor& x, const Tensor& weight, int64_t groups, const char* name) {
  check_dimensions(op, x, weight, name);
  check_groups(op, x, "x", groups);
  check(weight.size(1) == x.size(1) / groups, op, ": ", name, " must have C / groups input channels, ",
        x.size(1) / groups, ", got ", weight.size(1));
  Ints kernel;
  for (int64_t d = 2; d < weight.dim(); ++d) kernel.push_back(weight.size(d));
  return kernel;
}

// g, called `output`, has the sizes of a convolution of x
inline void check_geometry(const char* op, const Tensor& x, const Tensor& g, const char* output, const Ints& kernel,
                           const Ints& stride, const Ints& padding, const Ints& dilation, int64_t groups) {
  check_dimensions(op, x, g, output);
  const int64_t dims = x.dim() - 2;
  check_integers(op, "kernel", kernel, dims, 1);
  check_integers(op, "stride", stride, dims, 1);
  check_integers(op, "padding", padding, dims, 0);
  check_integers(op, "dilation", dilation, dims, 1);
  check_groups(op, x, "x", groups);
  check_groups(op, g, output, groups);
  Ints size, got;
  for (int64_t d = 0; d < dims; ++d) {
    const int64_t room = x.size(2 + d) + 2 * padding[d] - dilation[d] * (kernel[d] - 1) - 1;
    check(room >= 0, op, ": the kernel must fit into the padded x, got ", listed(kernel), " and shape ", shape(x));
    size.push_back(room / stride[d] + 1);
    got.push_back(g.size(2 + d));
  }
  check(size == got, op, ": ", output, " must have the sizes of the convolution's output, ", listed(size), ", got ",
        listed(got));
}
}  // namespace fastrw
